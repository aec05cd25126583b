"""Reading nodes that move no data, and the node that selects rows of a value."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.layers import custom
from graphsim.models.layers.custom.views import HandOnNode, JoinNode, PartNode, TakeRowsNode, ValueNode
from graphsim.models.yaml.names import size, whole
from graphsim.models.yaml.nodes.reading import Kind, NodeEntry, Setting, needed_size


def _value(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return ValueNode(**entry.given, elems=needed_size(fields, "elems", setting.known))


def _part(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return PartNode(**entry.given, elems=needed_size(fields, "elems", setting.known))


def _join(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return JoinNode(**entry.given)


def _hand_on(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return HandOnNode(**entry.given)


def _take_rows(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return TakeRowsNode(
        **entry.given,
        width=whole(fields, "width", setting.known, default=setting.hidden),
        rows=size(fields, "rows", setting.known),
    )


KINDS = {
    "value": Kind(read=_value, least=0, most=0),
    "part": Kind(read=_part),
    "join": Kind(read=_join),
    "hand_on": Kind(read=_hand_on),
    "take_rows": Kind(read=_take_rows, most=1, takes="one input"),
}
