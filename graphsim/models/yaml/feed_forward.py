"""The feed-forward part of a layer in a model file: an MLP, or a mixture of experts."""

from __future__ import annotations

from graphsim.models.layers.base import Layer
from graphsim.models.yaml.overrides import Overrides
from graphsim.models.yaml.sections import mlp

FEED_FORWARDS = ("mlp", "moe", "none")


def feed_forward(layer: Overrides, alone: bool) -> Layer | None:
    """The MoE layer if the layer or the model has one, otherwise, or if requested, the MLP; None for neither.

    alone: whether the layer has no feed-forward part if the file gives neither
    """
    usual = "moe" if "moe" in layer else "none" if alone and "mlp" not in layer else "mlp"
    kind = layer.text("feed_forward", usual, FEED_FORWARDS)
    if kind == "none":
        return None
    if kind == "moe":
        from graphsim.models.yaml.experts import moe

        return moe(layer.below("moe"))
    return mlp(layer.below("mlp"))
