"""The adapter of one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphsim.lora.profile import EngineProfile
from graphsim.models.phase import Phase
from graphsim.symbolic.questions import alike, may_be_nonzero
from graphsim.symbolic.substitute import with_fields
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig


def as_run(adapter: LoraConfig, engine: EngineProfile | None, phase: Phase) -> LoraConfig:
    """The adapter of a deployment with its share of the step.

    An engine without kernels for a variant refuses adapters of that variant; otherwise this is its own adapters' part
    of the step.
    """
    unknown = engine is not None and engine.kernels == "fused" and not adapter.kind.fused
    if unknown and adapter.strategy == "dynamic":
        adapter = with_fields(adapter, {"variant": "lora", "options": {}})
    return _present(_invoked(adapter, phase))


def _present(lora: LoraConfig) -> LoraConfig:
    """The adapter as seen by a step's kernels; an expected number below one active adapter counts as one in a part of
    the steps.
    """
    active = lora.adapted
    if alike(active, lora.active_adapters) and not may_be_nonzero(np.less(active, 1.0)):
        return lora
    share = lora.adapter_share * np.minimum(active, 1.0)
    return with_fields(lora, {"active_adapters": active, "adapter_share": share})


def _invoked(lora: LoraConfig, phase: Phase) -> LoraConfig:
    """The adapter with its share of a step's tokens, if its variant acts only on a part of them."""
    if not lora.kind.partial:
        return lora
    adapted: Num = 0.0
    for segment in phase.segments:
        each = lora.kind.adapted_tokens(lora, segment.new_tokens, segment.decode)
        adapted = adapted + segment.sequences * each
    share = lora.adapter_share * adapted / np.maximum(phase.tokens, 1.0)
    return with_fields(lora, {"adapter_share": share})
