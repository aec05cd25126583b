"""What an engine's own work takes beside its kernels, and the settings that make requests wait: `host` of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.lora.sources import read_flags, read_numbers
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHost:
    """The host's part of a request and of its steps. All zero for an engine whose host was not measured.

    request_s: of a request on its way through the server to the scheduler, and of its first token back
    token_s: more of it for each token of the prompt: tokenising, hashing, copies
    launch_s: of each kernel that the host starts in a step that no captured graph holds
    expert_layer_s: more in such a step for each layer with experts
    overlap_power: p of (kernels^p + host^p)^(1/p), the time of such a step: 1 where they add up, large where the
        longer of the two hides the other
    captured_prompt_tokens: the largest step with prompts whose kernels between attention are captured graphs
    captured_prompt_share: what of the host's time such a step keeps
    step_s: of each step, which waits for it, and sequence_s: more of each sequence of it; in runs over time
    mapping_slot_s: of each token with an adapter of a step with prompts, for each slot that is looked through for its
        own: half of those in use
    skip_s: of the scheduler in each step for each waiting request that it passes over, as its adapter has no slot
    sampling_s: of each sequence in a step that samples from a cut distribution; greedy steps take none
    first_use_s: that the first requests of a server wait, if nothing warmed it up
    receive_steps: decode steps after which new requests are looked at; chunk and batch settings of a server as started
        without options
    batch_wait_steps: steps for which prompts wait until enough of them have come; batch_wait_share: how much of the
        tokens of a step is enough
    chunked_prompts: whether a prompt may be cut to fit into a step; mixed_steps: whether steps hold prompts and
        sequences that generate
    planned_ahead: whether a step is planned while the one before it runs, so that a request which comes waits for both
    sources: where each field comes from; of one kept from another profile, "inherited from NAME: …"
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
        """Whether anything of it takes time."""
        return bool(self.request_s or self.token_s or self.launch_s or self.expert_layer_s)

    def joint_s(self, kernels_s: Num, host_s: Num) -> Num:
        """Seconds of a step that no graph holds, from those of its kernels and of the host that starts them."""
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
    """The group of a profile's file over that of its base; a field may be `{value: …, source: …}`.

    inherited: sources of what is kept from the base
    Problems are noted in `fields`: a number out of its bounds.
    """
    found: dict[str, Any] = {}
    sources = dict(inherited)
    found |= read_numbers(fields, _NUMBERS, base, sources)
    found |= read_flags(fields, _FLAGS, base, sources)
    return replace(base, **found, sources=sources)
