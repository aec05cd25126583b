"""The default adapter of a method that needs one."""

from __future__ import annotations

from graphsim.lora.config import LoraConfig
from graphsim.lora.targets import modules_of
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.phase import prefill
from graphsim.ops.precision import load_precision
from graphsim.symbolic.memo import Memo

RANK = 16
"""Of the default adapter."""

TARGETS = ("attn", "ffn")
"""Its targets, as far as a model has them: a pure Mamba model has no feed-forward part."""

_found: Memo[tuple[str, ...]] = Memo(most=64)


def default_adapter(model: ModelConfig) -> LoraConfig:
    """Rank 16 on all linears of attention (or of its replacement) and of MLPs, as far as the model has them.

    On all linears of a model that has neither.
    """
    targets = _found.get((model.layers,), lambda: _targets(model))
    return LoraConfig(rank=RANK, target_modules=targets or "all-linear")


def _targets(model: ModelConfig) -> tuple[str, ...]:
    graph = build(model, prefill(1.0, 1.0), load_precision("bf16"))
    tags = {tag for op, _ in modules_of(graph) for tag in getattr(op, "tags", ())}
    return tuple(word for word in TARGETS if word in tags)
