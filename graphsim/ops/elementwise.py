"""Memory-bound operations: activations, rotary embedding, residual adds, sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Elementwise(Op):
    """`reads` values of `elems` elements in, one out, `steps` elementary operations each.

    unchecked: the size of the inputs need not equal what is read, as with one number for each row or column
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    family: ClassVar[str] = "elementwise"

    elems: Num
    reads: Num = 1.0
    steps: Num = 1.0
    unchecked: bool = False

    def work(self) -> Work:
        """Each input is read once, the result written once."""
        moved = self.elems * self.activations.bytes
        return Work(vector_flops=self.elems * self.steps, input_bytes=self.reads * moved, write_bytes=moved)

    @property
    def out_elems(self) -> Num:
        """As many as of each input."""
        return self.elems

    @property
    def in_elems(self) -> Num | None:
        """`reads` times the elements, unless unchecked."""
        return None if self.unchecked else self.reads * self.elems

    @property
    def saved(self) -> Saved:
        """Its inputs; nothing of one value that is scaled in one step."""
        return Saved(inputs=self._kept_bytes)

    @property
    def _kept_bytes(self) -> Num:
        nonlinear = np.minimum(np.maximum(self.reads - 1.0, self.steps - 1.0), 1.0)
        return nonlinear * self.reads * self.elems * self.activations.bytes

    def cut(self, ways: Num) -> Elementwise:
        """An equal share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activation(Elementwise):
    """A nonlinearity, with `learned` weights of its own; gated MLPs multiply it by a second input."""

    op_type: ClassVar[OpType] = OpType.ACTIVATION
    by_row: ClassVar[bool] = False
    """Whether it multiplies each row by a number."""

    learned: Num = 0.0

    @property
    def parameters(self) -> Num:
        """The learned weights."""
        return self.learned

    @property
    def saved(self) -> Saved:
        """Its inputs, and the nonlinearity's result before it is multiplied by a second input: g, u and silu(g).

        A fused kernel computes the latter again.
        """
        between = np.minimum(self.reads - 1.0, 1.0) * np.minimum(np.maximum(self.steps - 1.0, 0.0), 1.0)
        return Saved(inputs=self._kept_bytes, own=between * self.elems * self.activations.bytes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Add(Elementwise):
    """The sum of two values; linear, so a sum of partial sums is a partial sum."""

    op_type: ClassVar[OpType] = OpType.ADD
    sharding: ClassVar[Sharding] = Sharding.LINEAR

    reads: Num = 2.0

    @property
    def saved(self) -> Saved:
        """Nothing: each input's gradient is the result's."""
        return Saved()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rope(Op):
    """Rotary embedding of queries and keys (arXiv 2104.09864), in one kernel; parts `q` and `k`."""

    op_type: ClassVar[OpType] = OpType.ROPE
    family: ClassVar[str] = "elementwise"

    tokens: Num
    heads: Num
    kv_heads: Num
    head_dim: Num

    def work(self) -> Work:
        """Reads and writes both; about three steps per element."""
        moved = self.out_elems * self.activations.bytes
        return Work(vector_flops=3.0 * self.out_elems, input_bytes=moved, write_bytes=moved)

    @property
    def out_rows(self) -> Num | None:
        """One per token."""
        return self.tokens

    @property
    def out_elems(self) -> Num:
        """Queries and keys together."""
        return self.tokens * (self.heads + self.kv_heads) * self.head_dim

    @property
    def out_parts(self) -> dict[str, Num]:
        """`q` and `k`."""
        row = self.tokens * self.head_dim
        return {"q": row * self.heads, "k": row * self.kv_heads}

    @property
    def in_elems(self) -> Num | None:
        """Queries and keys together."""
        return self.out_elems

    @property
    def saved(self) -> Saved:
        """Nothing: a rotation needs only the angles, which all layers share."""
        return Saved()

    def cut(self, ways: Num) -> Rope:
        """Heads are distributed; key heads are repeated when there are fewer than devices."""
        return replace(self, heads=self.heads / ways, kv_heads=cut_kv_heads(self.kv_heads, ways))


def cut_kv_heads(kv_heads: Num, ways: Num) -> Num:
    """Key/value heads on each of `ways` devices; at least one, since a head is never cut."""
    return np.maximum(kv_heads / ways, np.minimum(kv_heads, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TakeRows(Op):
    """Copies `rows` rows of `width` out of a longer value: the positions whose logits are needed."""

    sharding: ClassVar[Sharding] = Sharding.WHOLE
    op_type: ClassVar[OpType] = OpType.COPY
    family: ClassVar[str] = "elementwise"

    rows: Num
    width: Num

    def work(self) -> Work:
        """Reads and writes the rows."""
        moved = self.rows * self.width * self.activations.bytes
        return Work(input_bytes=moved, write_bytes=moved)

    @property
    def out_elems(self) -> Num:
        """rows times width."""
        return self.rows * self.width

    @property
    def saved(self) -> Saved:
        """Nothing: gradients go back to where the rows came from."""
        return Saved()

    def cut(self, ways: Num) -> TakeRows:
        """Not cut: it works on whole rows."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Concatenate(Elementwise):
    """Several values concatenated, `elems` in total; some may come from outside the block."""

    sharding: ClassVar[Sharding] = Sharding.WHOLE

    steps: Num = 0.0

    @property
    def in_elems(self) -> Num | None:
        """Not checked: not all of the values are inputs of the block."""
        return None

    @property
    def saved(self) -> Saved:
        """Nothing: each input's gradient is its part of the result's."""
        return Saved()


PENALTY_READS, PENALTY_WRITES = 73.0, 56.0
"""Bytes per logit that vLLM's element-wise operations on fp32 logits read and write to apply the penalties.

Counted off its apply_penalties and get_token_bin_counts_and_mask: 64-bit counts of prompt and output tokens made and
compared (16 read, 18 written), the repetition factor spread and chosen by both masks (7, 9), its inverse, the choice by
sign and the product (25, 13), and a product and a difference each for frequency and presence (25, 16).
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample(Op):
    """Picks a token from the logits of `rows` positions over `vocab` entries.

    penalties: repetition, frequency and presence penalties are applied first, as vLLM does for all three as soon as
        one request of the batch asks for one (its `model_executor/layers/utils.py`, apply_penalties)
    """

    op_type: ClassVar[OpType] = OpType.SAMPLE
    sharding: ClassVar[Sharding] = Sharding.WHOLE
    family: ClassVar[str] = "elementwise"

    rows: Num
    vocab: Num
    penalties: bool = False

    def work(self) -> Work:
        """One pass over the logits, and those of the penalties; writes one id per row."""
        logits = self.rows * self.vocab
        read, written = (PENALTY_READS, PENALTY_WRITES) if self.penalties else (0.0, 0.0)
        return Work(
            vector_flops=logits,
            input_bytes=logits * (self.activations.bytes + read),
            write_bytes=8.0 * self.rows + logits * written,
        )

    @property
    def out_elems(self) -> Num:
        """One id per row."""
        return self.rows

    @property
    def in_elems(self) -> Num | None:
        """All logits."""
        return self.rows * self.vocab

    @property
    def saved(self) -> Saved:
        """Nothing: a choice has no gradient."""
        return Saved()

    def cut(self, ways: Num) -> Sample:
        """Not cut: it needs the whole row."""
        return self
