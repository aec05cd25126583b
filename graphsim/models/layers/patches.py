"""The start of a tower, and layers that change the number of its rows."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Add, Concatenate, Conv2d, Embedding, Patches, Pool, TakeRows


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchEmbedding(Layer):
    """Patches of `inputs` values, each projected by a convolution without overlap or a linear layer.

    linear: PEFT's all-linear reaches it; hidden: of the projection, the section's if 0
    further: learned rows added to the patches (class and register tokens), the parameter `further_name`
    positions: entries of a table that is added
    position_name: where it is a parameter, not a module
    """

    module: str
    inputs: int
    bias: bool = False
    linear: bool = False
    further: int = 0
    further_name: str = ""
    positions: int = 0
    position_module: str = ""
    position_name: str = ""
    norm: NormLayer | None = None

    def build(self, scope: Scope, x: str) -> str:
        """Pixels -> rows of the tower."""
        own = self.further * scope.phase.sequences
        rows = scope.tokens - own
        x = scope.add("patches", Patches(rows=rows, width=self.inputs), [])
        embed = Projection(
            name=self.module, n=scope.hidden, k=self.inputs, bias=self.bias, linear=self.linear, quantised=False
        )
        x = scope.linear(embed, x, m=rows)
        elems = scope.tokens * scope.hidden
        if self.further:
            path = f"{scope.prefix}{self.further_name}" if self.further_name else ""
            learned = Embedding(tokens=own, entries=self.further, width=scope.hidden, whole=True, parameter=path)
            x = scope.add("with_class", Concatenate(elems=elems), [x, scope.add("class_embedding", learned, [])])
        if self.positions:
            module = f"{scope.prefix}{self.position_module}" if self.position_module else ""
            path = f"{scope.prefix}{self.position_name}" if self.position_name else ""
            table = Embedding(
                tokens=scope.tokens, entries=self.positions, width=scope.hidden, whole=True, module=module,
                parameter=path,
            )  # fmt: skip
            x = scope.add("embed_add", Add(elems=elems), [x, scope.add("position_embedding", table, [])])
        return self.norm.build(scope, x) if self.norm else x


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions(Layer):
    """A norm, then a learned position of each row, by `entries` of a table."""

    entries: int
    module: str
    norm: NormLayer

    def build(self, scope: Scope, x: str) -> str:
        """Rows -> rows with positions."""
        x = self.norm.build(scope, x)
        table = Embedding(
            tokens=scope.tokens, entries=self.entries, width=scope.hidden, whole=True,
            module=f"{scope.prefix}{self.module}",
        )  # fmt: skip
        learned = scope.add("position_embedding", table, [])
        return scope.add("embed_add", Add(elems=scope.tokens * scope.hidden), [x, learned])


@dataclass(frozen=True, slots=True, kw_only=True)
class Take(Layer):
    """Copies the section's number of rows out of the incoming ones."""

    def build(self, scope: Scope, x: str) -> str:
        """Rows -> fewer rows."""
        return scope.add("take", TakeRows(rows=scope.tokens, width=scope.hidden), [x])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling(Layer):
    """Each row of the section is the mean of `shared` incoming rows."""

    shared: int

    def build(self, scope: Scope, x: str) -> str:
        """Rows -> their means."""
        pool = Pool(rows=scope.tokens, width=scope.hidden, shared=float(self.shared))
        return scope.add("pool", pool, [x])


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights(Layer):
    """Learned values that are used in place, `entries` of `width` (the section's if 0): tables, scales, separators.

    names: of as many such tables
    added: whether they are added to the rows, or multiply them
    """

    names: tuple[str, ...]
    entries: int = 1
    width: int = 0
    added: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """Rows -> rows."""
        learned = [scope.add(name.rsplit(".", 1)[-1], self._table(scope, name), []) for name in self.names]
        if self.added:
            return scope.add("weights_add", Add(elems=scope.tokens * scope.hidden), [x, *learned])
        return scope.add("with_weights", Concatenate(elems=scope.tokens * scope.hidden), [x, *learned])

    def _table(self, scope: Scope, name: str) -> Embedding:
        width = self.width or scope.hidden
        return Embedding(
            tokens=scope.tokens * scope.hidden / width if self.added else 0.0, entries=self.entries, width=width,
            whole=True, parameter=f"{scope.prefix}{name}",
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(Layer):
    """A convolution of `side` x `side` taps over the grid of rows, to the section's channels.

    inputs: input channels, the section's if 0
    stride: input rows per row of the section
    """

    name: str
    inputs: int
    side: int = 3
    stride: int = 1
    bias: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """Rows -> rows of the section."""
        taps = self.side**2
        conv = Conv2d(
            m=scope.tokens, n=scope.hidden, k=taps * (self.inputs or scope.hidden), taps=float(taps),
            stride=float(self.stride), bias=self.bias, linear=False, weights=scope.activations,
            module=f"{scope.prefix}{self.name}",
        )  # fmt: skip
        return scope.add(self.name.rsplit(".", 1)[-1], conv, [x])
