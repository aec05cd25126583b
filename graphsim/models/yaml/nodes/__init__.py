"""The kinds of nodes that a block may contain, one file per subject."""

from graphsim.models.yaml.nodes import attention, experts, layers, pointwise, views, weights
from graphsim.models.yaml.nodes.reading import Kind, NodeEntry, Setting

KINDS: dict[str, Kind] = {
    **weights.KINDS,
    **pointwise.KINDS,
    **views.KINDS,
    **attention.KINDS,
    **experts.KINDS,
    **layers.KINDS,
}
"""Readers of the kinds of nodes, by name."""

__all__ = ["KINDS", "Kind", "NodeEntry", "Setting"]
