"""Blocks that a model file writes out node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import networkx as nx

from graphsim.errors import GraphError, choices_text
from graphsim.files.reading import Fields
from graphsim.graph import Value, validate
from graphsim.models.layers import custom
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import VECTORS
from graphsim.models.phase import prefill
from graphsim.models.yaml import mixers, sections
from graphsim.models.yaml.names import constants, size, whole
from graphsim.models.yaml.overrides import Overrides
from graphsim.ops import Part, Sharding
from graphsim.ops.precision import load_precision

MOST_NODES = 500
LONGEST_NAME = 100
SPLITS = {"replicated": Sharding.REPLICATED, "column": Sharding.COLUMN, "row": Sharding.ROW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a node is read: the layer's levels, the width of the residual stream, the known names."""

    layer: Overrides
    hidden: int
    known: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """What every node has: its name and inputs."""

    name: str
    inputs: tuple[Value, ...]


def read_block(name: str, layer: Overrides, model: Fields, blocks: Fields, hidden: int) -> Layer | None:
    """The block of that name with the layer's numbers put in; None after noting a problem."""
    if name not in blocks.data:
        layer.problem("block", f"is not known; {choices_text(name, blocks.keys())}")
        return None
    before = len(model.problems)
    setting = Setting(layer=layer, hidden=hidden, known=constants(layer, model, hidden))
    entries = blocks.sequence(name, most=MOST_NODES)
    if not entries:
        blocks.problem(name, "is not allowed; expected a list of nodes, at least one")
        return None
    nodes: dict[str, custom.Node] = {}
    for i, entry in enumerate(entries):
        node = _node(model.child(entry, f"blocks.{name}[{i}]"), nodes, setting)
        nodes[node.name] = node
    block = custom.CustomBlock(nodes=tuple(nodes.values()))
    if len(model.problems) == before:
        model.problems += [f"blocks.{name}: {problem}" for problem in _misfits(block, hidden)]
    return block


def _node(fields: Fields, earlier: Mapping[str, custom.Node], setting: Setting) -> custom.Node:
    name = fields.text("name")
    if name is not None and (not _usable(name) or name in earlier):
        fields.problem("name", "is not allowed; expected letters, digits and _, used once in the block and not 'input'")
        name = None
    kind = fields.text("op", choices=_READERS)
    inputs = _inputs(fields, earlier)
    if kind not in _READERS:
        kind = "elementwise"
    return _READERS[kind](fields, NodeEntry(name=name or f"unnamed_{len(earlier)}", inputs=inputs), setting)


def _usable(name: str) -> bool:
    return name.isidentifier() and len(name) <= LONGEST_NAME and name != custom.INPUT


def _inputs(fields: Fields, earlier: Mapping[str, custom.Node]) -> tuple[Value, ...]:
    """Names of earlier nodes or of parts of their results; the node before by default."""
    raw = fields.raw("inputs", [custom.INPUT, *earlier][-1])
    entries = [raw] if isinstance(raw, str) else raw
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
        fields.problem("inputs", "is not allowed; expected the name of an earlier node, or a list of such names")
        return (Value(custom.INPUT),)
    values = []
    for entry in entries:
        node, _, part = entry.partition(".")
        parts = earlier[node].parts if node in earlier else ()
        if node != custom.INPUT and node not in earlier:
            fields.problem("inputs", f"names '{entry[:60]}', which is no earlier node; {_choices(node, earlier)}")
        elif part and part not in parts:
            fields.problem("inputs", f"names '{entry[:60]}', which '{node}' does not have; {choices_text(part, parts)}")
        else:
            values.append(Value(node, (part,) if part else ()))
    return tuple(values)


def _choices(found: str, earlier: Mapping[str, custom.Node]) -> str:
    return choices_text(found, [custom.INPUT, *earlier])


def _gemm(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    from graphsim.lora.targets import WORDS

    targets = [str(word) for word in fields.sequence("targets", most=len(WORDS))]
    for word in targets:
        if word not in WORDS:
            fields.problem("targets", f"names '{word[:60]}', which is not known; {choices_text(word, WORDS)}")
    parts = _parts(fields, setting)
    width = sum(int(part.width) for part in parts)
    n = whole(fields, "n", setting.known, default=width or None)
    if parts and n != width:
        fields.problem("n", f"differs from the sum of its parts, {width}; leave it out or make them equal")
    projection = Projection(
        name=fields.text("module", entry.name),
        n=n,
        k=whole(fields, "k", setting.known),
        split=SPLITS[fields.text("split", "replicated", SPLITS)],
        units=whole(fields, "units", setting.known, default=0, least=0),
        bias=fields.flag("bias", False),
        tags=tuple(targets),
        pack=fields.text("pack", ""),
        linear=fields.flag("all_linear", True),
        quantised=fields.flag("quantised", True),
        parts=parts,
    )
    rows = size(fields, "m", setting.known)
    return custom.GemmNode(name=entry.name, inputs=entry.inputs, projection=projection, m=rows)


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
        if not _usable(str(key)):
            given.problem(key, "is not a usable name; expected letters, digits and _")
        parts.append(Part(name=str(key), width=width, units=units))
    return tuple(parts)


def _norm(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return custom.NormNode(
        name=entry.name,
        inputs=entry.inputs,
        kind=fields.text("kind", "rms", VECTORS),
        width=whole(fields, "width", setting.known, default=setting.hidden),
        rows=size(fields, "rows", setting.known),
        local=fields.flag("local", False),
        groups=whole(fields, "groups", setting.known, default=0, least=0),
        units=whole(fields, "units", setting.known, default=0, least=0),
        module=fields.text("module", entry.name),
    )


def _elementwise(kind: str) -> Callable[[Fields, NodeEntry, Setting], custom.Node]:
    def read(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
        if kind == "add" and len(entry.inputs) < 2:
            fields.problems.append(f"{fields.name('inputs')}: an add needs two inputs or more")
        return custom.ElementwiseNode(
            name=entry.name,
            inputs=entry.inputs,
            kind=kind,
            elems=size(fields, "elems", setting.known),
            steps=fields.number("steps", None, least=0.0, most=1e6),
        )

    return read


def _compute(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return custom.ComputeNode(
        name=entry.name,
        inputs=entry.inputs,
        elems=size(fields, "elems", setting.known),
        flops=size(fields, "flops", setting.known),
        vector_flops=size(fields, "vector_flops", setting.known),
        weights=whole(fields, "weights", setting.known, default=0, least=0),
        state=size(fields, "state", setting.known),
    )


def _rope(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    heads = whole(fields, "heads", setting.known)
    return custom.RopeNode(
        name=entry.name,
        inputs=entry.inputs,
        heads=heads,
        kv_heads=whole(fields, "kv_heads", setting.known, default=heads if len(entry.inputs) > 1 else 0, least=0),
        head_dim=whole(fields, "head_dim", setting.known),
    )


def _attention(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    heads = whole(fields, "heads", setting.known)
    kv_heads = whole(fields, "kv_heads", setting.known, default=heads)
    if heads % kv_heads:
        fields.problem("kv_heads", f"does not divide heads = {heads}; allowed: a divisor of {heads}")
    if len(entry.inputs) != 3:
        fields.problems.append(f"{fields.name('inputs')}: attention needs three inputs: queries, keys, values")
    attention = SelfAttention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=whole(fields, "head_dim", setting.known),
        value_dim=whole(fields, "value_dim", setting.known, default=0, least=0),
        window=whole(fields, "window", setting.known, default=0, least=0),
    )
    return custom.AttentionNode(name=entry.name, inputs=entry.inputs, attention=attention)


def _self_attention(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    layer = sections.attention(_section(fields, setting, "attention"), setting.hidden)
    return custom.LayerNode(name=entry.name, inputs=entry.inputs, layer=layer)


def _latent_attention(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    layer = mixers.latent_attention(_section(fields, setting, "latent_attention"))
    return custom.LayerNode(name=entry.name, inputs=entry.inputs, layer=layer)


def _mamba(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    layer = mixers.mamba(_section(fields, setting, "mamba"), setting.hidden)
    return custom.LayerNode(name=entry.name, inputs=entry.inputs, layer=layer)


def _mamba2(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    layer = mixers.mamba2(_section(fields, setting, "mamba2"))
    return custom.LayerNode(name=entry.name, inputs=entry.inputs, layer=layer)


def _mlp(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    layer = sections.mlp(_section(fields, setting, "mlp"))
    return custom.LayerNode(name=entry.name, inputs=entry.inputs, layer=layer)


def _moe(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    layer = sections.moe(_section(fields, setting, "moe"))
    return custom.LayerNode(name=entry.name, inputs=entry.inputs, layer=layer)


def _section(fields: Fields, setting: Setting, key: str) -> Overrides:
    """A node's own keys over those of the layer's section."""
    return Overrides(fields, *setting.layer.below(key).levels)


_READERS: dict[str, Callable[[Fields, NodeEntry, Setting], custom.Node]] = {
    "gemm": _gemm,
    "norm": _norm,
    "add": _elementwise("add"),
    "activation": _elementwise("activation"),
    "elementwise": _elementwise("elementwise"),
    "compute": _compute,
    "rope": _rope,
    "attention": _attention,
    "self_attention": _self_attention,
    "latent_attention": _latent_attention,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "mlp": _mlp,
    "moe": _moe,
}
"""What each kind of node reads from the file."""


def _misfits(block: custom.CustomBlock, hidden: int) -> list[str]:
    """What is wrong with a block as a program, found by building it for a few tokens."""
    from graphsim.ops import Input

    used = {value.node for node in block.nodes for value in node.inputs}
    idle = [node.name for node in block.nodes[:-1] if node.name not in used]
    problems = [f"no later node takes the result of '{name}'" for name in idle]
    phase = prefill(3.0, 5.0)
    scope = Scope(graph=nx.DiGraph(), phase=phase, precision=load_precision("bf16"), hidden=hidden)
    try:
        x = scope.add(custom.INPUT, Input(elems=phase.tokens * hidden), [])
        last = block.build(scope, x)
        validate(scope.graph)
    except GraphError as error:
        return [*problems, str(error)]
    elems = scope.graph.nodes[last]["op"].out_elems
    if elems != phase.tokens * hidden:
        width = float(elems / phase.tokens)
        problems.append(f"the last node '{last}' yields {width:g} elements per token; expected hidden_size = {hidden}")
    return problems
