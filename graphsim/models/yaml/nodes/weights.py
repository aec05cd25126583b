"""Reading nodes that hold weights: GEMMs, norms, tables, short convolutions and recurrences."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.layers import custom
from graphsim.models.layers.base import Projection
from graphsim.models.layers.custom.weights import ConvNode, EmbeddingNode, GemmNode, NormNode, ScanNode
from graphsim.models.layers.norm import VECTORS
from graphsim.models.yaml.names import size, usable, whole
from graphsim.models.yaml.nodes.reading import SPLITS, Kind, NodeEntry, Setting, targets
from graphsim.models.yaml.overrides import says_nothing
from graphsim.ops import Part


def _gemm(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    known, head = setting.known, fields.flag("head", False)
    if head and not setting.is_head:
        fields.problem("head", "belongs to the block that the model names as its head")
    parts = _parts(fields, setting)
    width = sum(int(part.width) for part in parts)
    n = whole(fields, "n", known, default=width or None)
    if parts and n != width:
        fields.problem("n", f"differs from the sum of its parts, {width}; leave it out or make them equal")
    heads, groups = (whole(fields, key, known, default=0, least=0) for key in ("heads", "groups"))
    if groups and n % groups:
        fields.problem("groups", f"does not divide n = {n}; allowed: a divisor of {n}")
    module = fields.text("module", entry.name)
    projection = Projection(
        name=module,
        n=n,
        k=whole(fields, "k", known),
        split=SPLITS[fields.text("split", "replicated", SPLITS)],
        units=whole(fields, "units", known, default=0, least=0),
        groups=groups,
        heads=heads,
        bias=fields.flag("bias", False),
        tags=targets(fields),
        pack=fields.text("pack", ""),
        linear=fields.flag("all_linear", not head),
        quantised=fields.flag("quantised", not head),
        shared=fields.flag("shared", False),
        bare=not module or heads > 0,
        parameter=fields.flag("bare", False),
        head=head,
        parts=parts,
    )
    if heads:
        alone = ("parts", "groups", "split", "units", "bias", "targets", "pack", "bare", "head", "module")
        says_nothing(fields, alone, "heads")
    return GemmNode(**entry.given, projection=projection, m=size(fields, "m", known))


def _parts(fields: Fields, setting: Setting) -> tuple[Part, ...]:
    """Named slices: `{q: heads * head_dim}` or `{q: {width: heads * head_dim, units: heads}}`."""
    given = fields.mapping("parts")
    parts = []
    for key in list(given.data):
        if isinstance(given.data[key], dict):
            part = given.mapping(key)
            units = whole(part, "units", setting.known, default=0, least=0)
            width = whole(part, "width", setting.known)
        else:
            units, width = 0, whole(given, key, setting.known)
        if not usable(str(key)):
            given.problem(key, "is not a usable name; expected letters, digits and _")
        parts.append(Part(name=str(key), width=width, units=units))
    return tuple(parts)


def _norm(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    known = setting.known
    kind = fields.text("kind", "rms", VECTORS)
    width = whole(fields, "width", known, default=setting.hidden)
    weights = whole(fields, "weights", known, default=VECTORS[kind] * width, least=0)
    return NormNode(
        **entry.given,
        vectors=weights / width,
        width=width,
        rows=size(fields, "rows", known),
        local=fields.flag("local", False),
        groups=whole(fields, "groups", known, default=0, least=0),
        units=whole(fields, "units", known, default=0, least=0),
        own=fields.flag("own", False),
        shared=fields.flag("shared", False),
        module=fields.text("module", entry.name),
    )


def _embedding(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    known, parameter = setting.known, fields.text("parameter", "")
    if parameter:
        says_nothing(fields, ("module",), "parameter")
    return EmbeddingNode(
        **entry.given,
        entries=whole(fields, "entries", known),
        width=whole(fields, "width", known, default=setting.hidden),
        tokens=size(fields, "tokens", known),
        whole_table=fields.flag("whole", False),
        shared=fields.flag("shared", False),
        module=fields.text("module", "" if parameter else entry.name),
        parameter=parameter,
    )


def _conv(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return ConvNode(
        **entry.given,
        channels=whole(fields, "channels", setting.known),
        taps=whole(fields, "taps", setting.known),
        bias=fields.flag("bias", False),
    )


def _scan(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    known = setting.known
    return ScanNode(
        **entry.given,
        channels=whole(fields, "channels", known),
        state=whole(fields, "state", known),
        reads=whole(fields, "reads", known),
        learned=whole(fields, "learned", known, default=0, least=0),
        matrix=fields.flag("matrix", False),
    )


KINDS = {
    "gemm": Kind(read=_gemm, weights=True),
    "norm": Kind(read=_norm, weights=True),
    "embedding": Kind(read=_embedding, least=0, most=0, weights=True),
    "conv": Kind(read=_conv, weights=True),
    "scan": Kind(read=_scan, weights=True),
}
