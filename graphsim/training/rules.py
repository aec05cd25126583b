"""The backward pass's rules of a setup, from its recipe and method."""

from __future__ import annotations

from graphsim.ops.formats import FORMATS
from graphsim.passes.backward_rules import BackwardRules
from graphsim.training.setup import TrainingSetup

FP32 = FORMATS["fp32"]


def rules_of(setup: TrainingSetup, entry: float = 0.0) -> BackwardRules:
    """The rules of one setup.

    entry: 1 where an earlier pipeline stage waits for a gradient
    """
    recipe = setup.recipe
    return BackwardRules(
        adapter_format=recipe.adapter_format,
        autocast=recipe.autocast,
        lora_dropout=recipe.lora_dropout,
        hidden_dropout=recipe.hidden_dropout,
        attention_dropout=recipe.attention_dropout,
        fused=recipe.fused,
        attention=recipe.attention,
        input_requires_grad=recipe.input_requires_grad,
        recompute=setup.recompute,
        recompute_every=setup.recompute_every,
        recomputed=recipe.recomputed,
        reentrant=recipe.checkpoint == "reentrant" and setup.recompute != "none",
        residual_bytes=FP32.bytes if setup.method.upcasts else recipe.residual_bytes,
        logit_bytes=recipe.loss.kept_bytes,
        entry=entry,
    )
