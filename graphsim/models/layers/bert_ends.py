"""The ends of BERT and similar models: a sum of tables as the stem; a dense layer and a norm before the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.layers.answers import Answer
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.norm import VECTORS, NormLayer
from graphsim.ops import Activation, Add, Concatenate, Embedding, Gemm, Join, Norm, Sample, Sharding, TakeRows
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table in addition to that of the tokens: `entries` rows, as wide as theirs if `width` is 0.

    idle: it exists but is never used
    """

    module: str
    entries: int
    width: int = 0
    idle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SumStem(Stem):
    """Tokens, positions and further tables are summed and normed; a projection leads from their width to the model's.

    beside: tables that are concatenated with the tokens' and mapped by the linear `mapped` before the sum (RoCBert)
    """

    tables: tuple[Table, ...] = ()
    beside: tuple[Table, ...] = ()
    mapped: str = ""

    def build(self, scope: Scope, x: str = "") -> str:
        """Token ids -> values of the residual stream."""
        width: Num = self.width or scope.hidden
        out = self._look_up(scope, Table(module=self.module, entries=self.vocab_size), width, whole=False)
        others = [self._look_up(scope, table, width) for table in self.beside]
        if self.mapped:
            flowing = [table.width for table in self.beside if not table.idle]
            wide = width + sum(flowing)
            both = scope.add("laid_beside", Concatenate(elems=scope.tokens * wide), [out, *others])
            out = scope.linear(Projection(name=self.mapped, n=width, k=wide, bias=True, quantised=False), both)
        positions = (Table(module=self.position_module, entries=self.positions),) if self.positions else ()
        summed = [self._look_up(scope, table, width) for table in (*positions, *self.tables)]
        flowing_in = [name for name, table in zip(summed, (*positions, *self.tables), strict=True) if not table.idle]
        if flowing_in:
            add = Add(elems=scope.tokens * width, reads=1.0 + len(flowing_in))
            out = scope.add("embed_add", add, [out, *flowing_in])
        out = replace(self.norm, width=width).build(scope, out) if self.norm else out
        if not self.projection:
            return out
        return scope.linear(Projection(name=self.projection, n=scope.hidden, k=width, bias=True, quantised=False), out)

    def _look_up(self, scope: Scope, table: Table, width: Num, whole: bool = True) -> str:
        op = Embedding(
            tokens=0.0 if table.idle else scope.tokens,
            entries=table.entries,
            width=table.width or width,
            whole=whole,
            module=table.module,
        )
        return scope.add(table.module.rsplit(".", 1)[-1], op, [])


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformHead(Head):
    """A dense layer, a nonlinearity and a norm on the positions that need logits, then the vocabulary with a bias.

    transform, transform_norm: modules of the dense layer and the norm, "" where there are none
    transform_bias: whether the dense layer has one
    transform_kind: of the norm
    spare: modules of weights per entry that the class has but does not use
    pooler: module of a linear of the first position that it does not use either
    body_pooler: of that linear in the class without a head, which uses it
    """

    transform: str
    transform_norm: str
    transform_bias: bool = True
    transform_kind: str = "layer"
    spare: tuple[str, ...] = ()
    pooler: str = ""
    body_pooler: str = ""

    def build(self, scope: Scope, x: str) -> str:
        """Residual stream -> logits -> token ids."""
        rows = scope.phase.logit_rows
        out = self.norm.build(scope, x) if self.norm else x
        if not scope.phase.all_logits:
            out = scope.add("last_tokens", TakeRows(rows=rows, width=scope.hidden), [out])
        out = self.logits(scope, out, rows)
        return scope.add("sample", Sample(rows=rows, vocab=self.vocab_size, penalties=self.penalties), [out])

    def logits(self, scope: Scope, x: str, rows: Num) -> str:
        """Normed rows -> logits."""
        out, width = x, self.width or scope.hidden
        if self.transform:
            out = self._transformed(scope, out, rows, width)
        if self.pooler:
            pool = Projection(name=self.pooler, n=scope.hidden, k=scope.hidden, bias=True, quantised=False)
            scope.linear(pool, x, m=0.0)
        for module in self.spare:
            idle = Embedding(tokens=0.0, entries=self.vocab_size, width=1, whole=True, module=module)
            scope.add(f"spare_{module.rsplit('.', 1)[-1]}", idle, [])
        logits = Gemm(
            m=rows,
            n=self.vocab_size,
            k=width,
            split=Sharding.COLUMN,
            bias=self.bias,
            shared=self.tied,
            weights=scope.activations,
            module=self.module,
            linear=False,
            head=True,
        )
        return scope.add(self.module.rsplit(".", 1)[-1], logits, [out])

    def _transformed(self, scope: Scope, x: str, rows: Num, width: Num) -> str:
        dense = Projection(name=self.transform, n=width, k=scope.hidden, bias=self.transform_bias, quantised=False)
        out = scope.linear(dense, x, m=rows, name="transform")
        out = scope.add("transform_act", Activation(elems=rows * width, steps=4.0), [out])
        norm = Norm(rows=rows, width=width, vectors=VECTORS[self.transform_kind], module=self.transform_norm)
        return scope.add("transform_norm", norm, [out])


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedHead(Answer):
    """Logits of every token, without sampling: predictions of masked tokens (arXiv 1810.04805).

    head: its layers; `tied` here overrides the head's own
    """

    head: TransformHead

    def build(self, scope: Scope, x: str) -> str:
        """Residual stream -> logits of every token."""
        out = self.norm.build(scope, x) if self.norm else x
        return replace(self.head, tied=self.tied).logits(scope, out, scope.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderEnd(Layer):
    """After an encoder's last layer: a norm, a linear of the first position, whose result is unused, one to the
    decoder.

    pooler, projection: modules of the linears, "" where there are none
    width: of what the projection yields
    """

    norm: NormLayer | None = None
    pooler: str = ""
    projection: str = ""
    width: int = 0

    def build(self, scope: Scope, x: str) -> str:
        """The encoder's rows as the decoder reads them, and unused results of its class."""
        rows = self.norm.build(scope, x) if self.norm else x
        out, width = rows, scope.hidden
        if self.projection:
            width = self.width
            out = scope.linear(Projection(name=self.projection, n=width, k=scope.hidden, bias=True), rows)
        if not self.pooler:
            return out
        first = scope.phase.sequences
        taken = scope.add("first_tokens", TakeRows(rows=first, width=scope.hidden), [rows])
        pool = Projection(name=self.pooler, n=scope.hidden, k=scope.hidden, bias=True, quantised=False)
        pooled = scope.linear(pool, taken, m=first, name="pooler")
        pooled = scope.add("pooler_act", Activation(elems=first * scope.hidden, steps=4.0), [pooled])
        return scope.add("encoded", Join(elems=scope.tokens * width + first * scope.hidden), [out, pooled])
