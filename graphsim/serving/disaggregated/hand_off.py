"""How engines hand a prompt over from the prefill worker to the decode worker.

Engines differ in when each side allocates memory, what is sent when, and where the first token comes from:

    vllm    NIXL connector: the router sends the prompt to a prefill worker with max_tokens=1 and then to a decode
            worker, which takes blocks for the whole prompt and pulls (WAITING_FOR_REMOTE_KVS); it computes the last
            token of the prompt again, whose step gives the first token (vLLM issues 25373 and 50913, pull requests
            50559 and 51919: the prefill worker's own is discarded)
    sglang  the decode worker takes blocks first and tells the prefill worker where they are, which then computes the
            prompt and pushes each chunk as it is done; the first token comes with the last one; a decode worker keeps
            --num-reserved-decode-tokens, 512, for each request (python/sglang/srt/disaggregation/{prefill,decode}.py);
            the router waits for the answers of both workers (SGLang issue 22853)
    trtllm  a context server computes, a generation server takes blocks and asks for them; the first token comes with
            the answer of the context server (TensorRT-LLM, features/disagg-serving.html)

Under all of them the client's stream comes from the decode worker, so that TTFT includes the transfer.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.errors import ConfigError, choices_text
from graphsim.units import short

OVERLAPS = ("none", "chunks", "layers")
"""When keys and values are sent: after the whole prompt, after each chunk of it, or after each layer of each chunk."""

DESCRIPTORS = ("blocks", "layers", "one")
"""The unit of a transfer descriptor: each block of each layer, each layer, or one packed buffer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOff:
    """The rules by which an engine hands a request over.

    decoder_first: whether the decode worker allocates the prompt's blocks before its computation may begin; otherwise
        it does when the prompt is done
    repeats_last: whether the decode worker computes the prompt's last token again and yields the first token; otherwise
        the prefill worker's first token comes with the transfer
    reserved_tokens: tokens that a decode worker keeps free per admitted request, in addition to its prompt
    overlap: a name of OVERLAPS
    descriptors: one of DESCRIPTORS
    dispatch_s: seconds from the end of a prompt to the start of its transfer and after it, for routing and
        notification, excluding waits for steps
    router_waits: whether the router waits for the prefill worker's answer before it forwards anything, which is sent
        between two steps
    """

    decoder_first: bool = False
    repeats_last: bool = True
    reserved_tokens: int = 0
    overlap: str = "none"
    descriptors: str = "blocks"
    router_waits: bool = False
    dispatch_s: float = 1e-3

    def __post_init__(self) -> None:
        for name, allowed in (("overlap", OVERLAPS), ("descriptors", DESCRIPTORS)):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} = {short(value)} is not known; {choices_text(str(value), allowed)}")


HANDOVER_S, TRANSFERRED_S, REPEATED_S = 0.197, 0.029, 0.058
"""Medians under vLLM with NIXL, 3 prefill workers and 1 decode worker (pull request 51919): from the first token of a
prefill worker to the client's, and of these the transfer and the repeated token with its wait for a step."""

HAND_OFFS = {
    "vllm": HandOff(dispatch_s=HANDOVER_S - TRANSFERRED_S - REPEATED_S),
    "sglang": HandOff(
        decoder_first=True, repeats_last=False, reserved_tokens=512, overlap="chunks", descriptors="layers",
        router_waits=True,
    ),
    "trtllm": HandOff(repeats_last=False, descriptors="one"),
}  # fmt: skip
"""By the family of an engine's flags. dispatch_s of SGLang and TensorRT-LLM, 1 ms, is an assumption."""


def hand_off_of(flags: str) -> HandOff:
    """The rules of an engine by the family of its flags; vLLM's for an unknown engine."""
    return HAND_OFFS.get(flags, HAND_OFFS["vllm"])
