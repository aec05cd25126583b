"""Entries that hold weights: GEMMs, norms, tables, short convolutions and recurrences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphsim.files.arithmetic import Expression
from graphsim.graph import Value
from graphsim.models.layers.base import Projection, Scope
from graphsim.models.layers.custom.node import Node
from graphsim.ops import CausalConv, Embedding, Norm, Scan
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmNode(Node):
    """A GEMM with weights: `m` rows, by default all tokens, or the positions that need logits."""

    projection: Projection
    m: Expression | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The projection's slices."""
        return tuple(part.name for part in self.projection.parts)

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One GEMM."""
        rows = step["logit_rows"] if self.projection.head else None
        if self.m is not None:
            rows = self.size("m", self.m, step)
        source = next(iter(self.together(scope, inputs)), None)
        return scope.linear(self.projection, source, m=rows, name=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormNode(Node):
    """Normalisation of `rows` rows of `width`; `vectors` learned ones; the rest as the operation's."""

    vectors: float
    width: float
    rows: Expression | None = None
    local: bool = False
    groups: int = 0
    units: int = 0
    own: bool = False
    shared: bool = False
    module: str = ""

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """As many rows as the input has, unless told otherwise."""
        rows = self.brought(scope, inputs) / self.width if self.rows is None else self.size("rows", self.rows, step)
        norm = Norm(
            rows=rows,
            width=self.width,
            vectors=self.vectors,
            local=self.local or self.groups > 0,
            groups=self.groups,
            units=self.units,
            own=self.own,
            reused=self.shared,
            module=f"{scope.prefix}{self.module}" if self.module else "",
        )
        return scope.add(self.name, norm, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingNode(Node):
    """Rows looked up in a table, one for each token by default; the rest as the operation's."""

    entries: int
    width: int
    tokens: Expression | None = None
    whole_table: bool = False
    shared: bool = False
    module: str = ""
    parameter: str = ""

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One look-up."""
        module, parameter = (f"{scope.prefix}{path}" if path else "" for path in (self.module, self.parameter))
        table = Embedding(
            tokens=scope.tokens if self.tokens is None else self.size("tokens", self.tokens, step),
            entries=self.entries,
            width=self.width,
            whole=self.whole_table,
            shared=self.shared,
            module=module,
            parameter=parameter,
            weights=scope.table_format(module or parameter),
        )
        return scope.add(self.name, table, [])


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNode(Node):
    """A depthwise causal convolution along each sequence, whose last taps are kept."""

    channels: int
    taps: int
    bias: bool = False

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel."""
        conv = CausalConv(**scope.along, channels=self.channels, taps=self.taps, bias=self.bias)
        return scope.add(self.name, conv, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanNode(Node):
    """A recurrence along each sequence.

    reads: elements per token without the state; the rest as the operation's
    """

    channels: int
    state: int
    reads: int
    learned: int = 0
    matrix: bool = False

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel."""
        scan = Scan(
            **scope.along,
            channels=self.channels,
            state=self.state,
            inputs=self.reads,
            learned=self.learned,
            matrix=self.matrix,
        )
        return scope.add(self.name, scan, inputs)
