"""The kinds of nodes that a block may have, one file for each subject."""

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
"""What each kind of node reads from the file."""

__all__ = ["KINDS", "Kind", "NodeEntry", "Setting"]
