"""What autograd saves from the forward pass until the backward pass has used it: one node per storage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from graphsim.ops.base import Op
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptValue(Op):
    """A storage that lives from the forward to the backward pass: `elems` elements; no work, no time.

    of: the node whose result, or part of it, it is, with the repeat that this stands in: `layers.attn_norm`
    part: of the result
    what: the storage, if it is not part of the result, such as `rstd`, `mask`, a copy in `fp32`
    kept_bytes_per_elem: of its memory
    again: whether a recomputed turn produced it, so that it lives only within that turn; it then has its producer for
        input
    takes_memory: whether it is memory of its own until the backward pass; not so a slice of weights that lie there
        anyway, or what autograd packs for a result that is detached at once, which saved-tensor hooks still see
    """

    launched: ClassVar[bool] = False

    elems: Num
    of: str
    part: str = ""
    what: str = ""
    kept_bytes_per_elem: Num = 2.0
    again: bool = False
    takes_memory: bool = True

    @property
    def kept_bytes(self) -> Num:
        """Its size, per device, as saved-tensor hooks count it."""
        return self.elems * self.kept_bytes_per_elem

    @property
    def memory_bytes(self) -> Num:
        """Memory that it takes until the backward pass has used it, per device."""
        return self.kept_bytes if self.takes_memory else 0.0

    @property
    def is_view(self) -> Any:
        """Whether it takes no memory of its own: the forward pass allocated it."""
        return True

    @property
    def out_elems(self) -> Num:
        """All of them."""
        return self.elems

    @property
    def saved(self) -> Saved:
        """Nothing: it is a saved value itself."""
        return Saved()

    def cut(self, ways: Num) -> KeptValue:
        """A share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptWeights(KeptValue):
    """Weights that autograd saves because they are not parameters: a copy in another format, a slice."""

    constant: ClassVar[bool] = True
