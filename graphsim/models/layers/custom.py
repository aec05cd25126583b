"""A block as its author writes it: nodes in launch order, with dimensions as arithmetic.

Dimensions of weights are numbers once the model's fields are known. Sizes of what flows may also name what a step
brings: `tokens`, `sequences`, `kv_tokens` (cache rows seen), `pairs` (query-key pairs) and `logit_rows`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphsim.errors import GraphError
from graphsim.files.arithmetic import Expression
from graphsim.graph import Value
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import VECTORS
from graphsim.ops import Activation, Add, Compute, Elementwise, Join, Norm, Op, Rope
from graphsim.units import Num

INPUT = "input"
STEP_NAMES = ("tokens", "sequences", "kv_tokens", "pairs", "logit_rows")
"""What a step brings, for use in arithmetic."""


def step_values(scope: Scope) -> dict[str, Num]:
    """The numbers behind STEP_NAMES."""
    phase = scope.phase
    return {
        "tokens": phase.tokens,
        "sequences": phase.sequences,
        "kv_tokens": sum((s.kv_tokens() for s in phase.segments), start=0.0),
        "pairs": sum((s.pairs(causal=phase.causal) for s in phase.segments), start=0.0),
        "logit_rows": phase.logit_rows,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One entry of a custom block. `inputs` name earlier entries, or `input`, or a part such as `qkv.q`."""

    name: str
    inputs: tuple[Value, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Named parts of its result that later nodes may take."""
        return ()

    @abstractmethod
    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Add the node's operations and return the name of the one that holds its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmNode(Node):
    """A product with weights: `m` rows, all tokens by default."""

    projection: Projection
    m: Expression | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The projection's slices."""
        return tuple(part.name for part in self.projection.parts)

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One GEMM."""
        rows = None if self.m is None else _size(self.name, "m", self.m, step)
        return scope.linear(self.projection, _one(scope, self.name, inputs), m=rows, name=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormNode(Node):
    """Normalisation of `rows` rows of `width`; `local` and `groups` as the operation's."""

    kind: str
    width: float
    rows: Expression | None = None
    local: bool = False
    groups: int = 0
    units: int = 0
    module: str = ""

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """As many rows as the input has, unless told otherwise."""
        rows = _elems(scope, inputs) / self.width if self.rows is None else _size(self.name, "rows", self.rows, step)
        norm = Norm(
            rows=rows,
            width=self.width,
            vectors=VECTORS[self.kind],
            local=self.local or self.groups > 0,
            groups=self.groups,
            units=self.units,
            module=f"{scope.prefix}{self.module}",
        )
        return scope.add(self.name, norm, inputs)


_KINDS: dict[str, tuple[type[Elementwise], float]] = {
    "add": (Add, 1.0),
    "activation": (Activation, 4.0),
    "elementwise": (Elementwise, 1.0),
}
"""Operation and steps per element of the kinds of elementwise nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementwiseNode(Node):
    """Sums, nonlinearities, gates: `elems` results (as many as the first input has), `steps` operations each."""

    kind: str
    elems: Expression | None = None
    steps: float | None = None

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Reads all inputs once, writes the result once."""
        op, steps = _KINDS[self.kind]
        first = _elems(scope, inputs[:1])
        elems = first if self.elems is None else _size(self.name, "elems", self.elems, step)
        reads = _elems(scope, inputs) / elems
        made = op(elems=elems, reads=reads, steps=steps if self.steps is None else self.steps)
        return scope.add(self.name, made, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeNode(Node):
    """An operation of which the author states results, work, weights and state."""

    elems: Expression | None = None
    flops: Expression | None = None
    vector_flops: Expression | None = None
    weights: int = 0
    state: Expression | None = None

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Nothing is demanded that is not stated."""
        stated = {
            name: 0.0 if expression is None else _size(self.name, name, expression, step)
            for name, expression in (("flops", self.flops), ("vector_flops", self.vector_flops), ("state", self.state))
        }
        elems = _elems(scope, inputs[:1]) if self.elems is None else _size(self.name, "elems", self.elems, step)
        op = Compute(
            elems=elems,
            reads=_elems(scope, inputs),
            flops=stated["flops"],
            vector_flops=stated["vector_flops"],
            weights_elems=self.weights,
            state_elems=stated["state"],
        )
        return scope.add(self.name, op, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeNode(Node):
    """Rotary embedding of queries, and keys if there are any; parts `q` and `k`."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def parts(self) -> tuple[str, ...]:
        """Queries, and keys if there are any."""
        return ("q", "k") if self.kv_heads else ("q",)

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel for both."""
        rope = Rope(tokens=scope.tokens, heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim)
        return scope.add(self.name, rope, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNode(Node):
    """Cache and softmax attention of given queries, keys and values."""

    attention: SelfAttention

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Appends keys and values to the cache, attends."""
        if len(inputs) != 3:
            raise GraphError(f"node '{self.name}' has {len(inputs)} inputs; expected queries, keys and values")
        q, k, v = inputs
        return self.attention.attend(scope, q, k, v)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNode(Node):
    """One of graphsim's own layers as a node."""

    layer: Layer

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """All the layer's operations."""
        value = _one(scope, self.name, inputs)
        return self.layer.build(scope, _joined(scope, self.name, inputs) if value.parts else value.node)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomBlock(Layer):
    """Nodes in launch order; the last one's result is the block's."""

    nodes: tuple[Node, ...]

    def build(self, scope: Scope, x: str) -> str:
        """Each node reads earlier ones."""
        step = step_values(scope)
        made = {INPUT: x}
        for node in self.nodes:
            inputs = [Value(made[value.node], value.parts) for value in node.inputs]
            made[node.name] = node.build(scope, inputs, step)
        return made[self.nodes[-1].name]


def _size(node: str, dim: str, expression: Expression, step: Mapping[str, Num]) -> Num:
    value = expression.evaluate(step)
    if not np.all(np.isfinite(value) & (np.asarray(value) >= 0)):
        raise GraphError(f"node '{node}': {dim} = {expression} is negative or not finite for this step")
    return value


def _elems(scope: Scope, inputs: Sequence[Value]) -> Num:
    """Elements that the inputs bring together."""
    return sum((_value_elems(scope, value) for value in inputs), start=0.0)


def _value_elems(scope: Scope, value: Value) -> Num:
    op: Op = scope.graph.nodes[value.node]["op"]
    if not value.parts:
        return op.out_elems
    sizes = op.out_parts
    return sum((sizes[part] for part in value.parts), start=0.0)


def _one(scope: Scope, name: str, inputs: Sequence[Value]) -> Value:
    """The inputs as one value: several are laid side by side."""
    return inputs[0] if len(inputs) == 1 else Value(_joined(scope, name, inputs))


def _joined(scope: Scope, name: str, inputs: Sequence[Value]) -> str:
    return scope.add(f"{name}.join", Join(elems=_elems(scope, inputs)), inputs)
