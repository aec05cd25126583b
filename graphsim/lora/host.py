"""An engine's host time in addition to its kernels, and the settings that make requests wait: `host` of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.lora.sources import read_flags, read_numbers
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHost:
    """Host time of a request and of its steps, in seconds. All zero for an engine whose host was not measured.

    request_s: per request, on its way through the server to the scheduler, and of its first token back
    token_s: in addition per prompt token: tokenising, hashing, copies
    launch_s: per kernel launched by the host, in a step that is not a captured graph
    expert_layer_s: in addition per layer with experts, in such a step
    overlap_power: p of (kernels^p + host^p)^(1/p), the time of such a step: 1 if the two add up, large if the longer
        one hides the other
    captured_prompt_tokens: tokens of the largest step with prompts whose kernels between attention are captured graphs
    captured_prompt_share: share of the host time that remains in such a step
    step_s: per step, which waits for it
    sequence_s: in addition per sequence in the step; in simulations over time
    mapping_slot_s: per token with an adapter in a step with prompts, and per slot searched for it: half of those in use
    skip_s: per step, for each waiting request that the scheduler skips because its adapter has no slot
    sampling_s: per sequence in a step that samples from a truncated distribution; greedy steps take none
    first_use_s: that the first requests of a server wait if it was not warmed up
    receive_steps: number of decode steps after which the scheduler looks for new requests
    batch_wait_steps: number of steps for which prompts wait until enough of them have arrived
    batch_wait_share: share
        of a step's tokens that is enough
    chunked_prompts: whether a prompt may be split to fit into a step
    mixed_steps: whether a step may contain both
        prompts and generating sequences
    planned_ahead: whether a step is scheduled while the previous one runs, so that a new request waits for both
    sources: the source of each field; "inherited from NAME: …" for a field taken from another profile
    """

    request_s: float = 0.0
    token_s: float = 0.0
    launch_s: float = 0.0
    expert_layer_s: float = 0.0
    overlap_power: float = 1.0
    captured_prompt_tokens: float = 0.0
    captured_prompt_share: float = 1.0
    step_s: float = 0.0
    sequence_s: float = 0.0
    mapping_slot_s: float = 0.0
    skip_s: float = 0.0
    sampling_s: float = 0.0
    first_use_s: float = 0.0
    receive_steps: float = 1.0
    batch_wait_steps: float = 0.0
    batch_wait_share: float = 0.0
    chunked_prompts: bool = True
    mixed_steps: bool = True
    planned_ahead: bool = False
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_known(self) -> bool:
        """Whether any host time is known."""
        return bool(self.request_s or self.token_s or self.launch_s or self.expert_layer_s)

    def joint_s(self, kernels_s: Num, host_s: Num) -> Num:
        """Seconds of a step that is not captured, from those of its kernels and of the host that launches them."""
        p = self.overlap_power
        return (kernels_s**p + host_s**p) ** (1.0 / p)


_NUMBERS = {
    "request_s": ("s", 0.0, 10.0), "token_s": ("s", 0.0, 0.01), "launch_s": ("s", 0.0, 0.01),
    "expert_layer_s": ("s", 0.0, 0.1), "overlap_power": ("", 1.0, 100.0), "captured_prompt_tokens": ("", 0.0, 1e9),
    "captured_prompt_share": ("", 0.0, 1.0),
    "step_s": ("s", 0.0, 0.1), "sequence_s": ("s", 0.0, 0.01), "mapping_slot_s": ("s", 0.0, 0.001),
    "skip_s": ("s", 0.0, 0.001), "sampling_s": ("s", 0.0, 0.1), "first_use_s": ("s", 0.0, 1e4),
    "receive_steps": ("", 1.0, 1e4), "batch_wait_steps": ("", 0.0, 1e4), "batch_wait_share": ("", 0.0, 1.0),
}  # fmt: skip
_FLAGS = ("chunked_prompts", "mixed_steps", "planned_ahead")


def read_host(fields: Fields, base: EngineHost, inherited: Mapping[str, str]) -> EngineHost:
    """The `host` group of a profile's file, based on that of its base; a field may be `{value: …, source: …}`.

    inherited: sources of the fields inherited from the base
    Problems are noted in `fields`: a number out of its bounds.
    """
    found: dict[str, Any] = {}
    sources = dict(inherited)
    found |= read_numbers(fields, _NUMBERS, base, sources)
    found |= read_flags(fields, _FLAGS, base, sources)
    return replace(base, **found, sources=sources)
