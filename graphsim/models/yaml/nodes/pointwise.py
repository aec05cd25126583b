"""Reading elementwise nodes, copies, and nodes that state their FLOPs and bytes."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.layers import custom
from graphsim.models.layers.custom.pointwise import STEPS, ComputeNode, CopyNode, ElementwiseNode
from graphsim.models.yaml.names import size, whole
from graphsim.models.yaml.nodes.reading import Kind, NodeEntry, Reader, Setting
from graphsim.models.yaml.sections import MOST_WEIGHTS
from graphsim.units import amount_text

LONGEST_NOTE = 200
MOST_LAUNCHES = 10_000


def _elementwise(kind: str) -> Reader:
    def read(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
        known = setting.known
        return ElementwiseNode(
            **entry.given,
            kind=kind,
            elems=size(fields, "elems", known),
            reads=size(fields, "reads", known),
            steps=fields.number("steps", STEPS[kind], least=0.0, most=1e6),
            learned=0 if kind == "add" else whole(fields, "learned", known, default=0, least=0, most=MOST_WEIGHTS),
            unchecked=fields.flag("unchecked", False),
        )

    return read


def _copy(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return CopyNode(**entry.given, elems=size(fields, "elems", setting.known))


def _compute(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    known, note = setting.known, fields.text("note", "")
    if len(note) > LONGEST_NOTE:
        fields.problems.append(
            f"{fields.name('note')} has {len(note)} letters; allowed: at most {amount_text(LONGEST_NOTE)}"
        )
    return ComputeNode(
        **entry.given,
        elems=size(fields, "elems", known),
        reads=size(fields, "reads", known),
        flops=size(fields, "flops", known),
        vector_flops=size(fields, "vector_flops", known),
        weights=whole(fields, "weights", known, default=0, least=0, most=MOST_WEIGHTS),
        state=size(fields, "state", known),
        launches=fields.integer("launches", 1, most=MOST_LAUNCHES),
        unchecked=fields.flag("unchecked", False),
        note=note,
    )


KINDS = {
    "add": Kind(read=_elementwise("add"), least=2, takes="two inputs or more"),
    "activation": Kind(read=_elementwise("activation"), weights=True),
    "elementwise": Kind(read=_elementwise("elementwise"), weights=True),
    "copy": Kind(read=_copy),
    "compute": Kind(read=_compute, least=0, weights=True),
}
