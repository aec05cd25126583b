"""Cross-entropy after the logits, and its gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graphsim.ops.base import Op, OpType, Work
from graphsim.ops.gradients.gradient import Gradient
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loss(Op):
    """Cross-entropy of `rows` rows of `vocab` logits, sharded over columns (Megatron-LM, arXiv 1909.08053)."""

    op_type: ClassVar[OpType] = OpType.SAMPLE
    family: ClassVar[str] = "elementwise"

    rows: Num
    vocab: Num

    def work(self) -> Work:
        """Reads the logits, writes one loss per row; about five steps per logit."""
        logits = self.rows * self.vocab
        return Work(vector_flops=5.0 * logits, input_bytes=logits * self.activations.bytes, write_bytes=4.0 * self.rows)

    @property
    def out_elems(self) -> Num:
        """One per row."""
        return self.rows

    @property
    def in_elems(self) -> Num | None:
        """All logits."""
        return self.rows * self.vocab

    @property
    def saved(self) -> Saved:
        """The logits."""
        return Saved(inputs=self.rows * self.vocab * self.activations.bytes)

    def cut(self, ways: Num) -> Loss:
        """A share of the columns."""
        return replace(self, vocab=self.vocab / ways)

    def cut_tokens(self, ways: Num) -> Loss:
        """A share of the rows."""
        return replace(self, rows=self.rows / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossBackward(Gradient, Op):
    """Softmax less one at the target: the gradient of the logits."""

    op_type: ClassVar[OpType] = OpType.SAMPLE
    family: ClassVar[str] = "elementwise"

    rows: Num
    vocab: Num

    def work(self) -> Work:
        """Reads what was kept of the logits, writes their gradient."""
        logits = self.rows * self.vocab
        moved = logits * self.activations.bytes
        return Work(vector_flops=3.0 * logits, input_bytes=moved, write_bytes=moved)

    @property
    def out_elems(self) -> Num:
        """Elements of all logits."""
        return self.rows * self.vocab

    @property
    def out_rows(self) -> Num | None:
        """rows."""
        return self.rows

    def cut(self, ways: Num) -> LossBackward:
        """A share of the columns."""
        return replace(self, vocab=self.vocab / ways)

    def cut_tokens(self, ways: Num) -> LossBackward:
        """A share of the rows."""
        return replace(self, rows=self.rows / ways)
