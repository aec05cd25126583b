"""The data recorded for a step: operations in order, and calls of layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

Size = Any
"""A number, or a sympy expression of the step's symbols."""


@dataclass(frozen=True, slots=True)
class RowInput:
    """One input of a row.

    source: the row, weight, state or input that it comes from
    shape: number of distinct elements along each dimension; 1 for a broadcast dimension
    offset: offset of its first element, which distinguishes slices of one value; for a result of a row other than the
        first, a pair of the result's index and the offset
    """

    source: str
    shape: tuple[Size, ...]
    offset: Size = 0


@dataclass(slots=True, kw_only=True)
class Row:
    """One operation.

    name: unique name
    kind: `linear`, `attention`, `norm`, … for calls recorded as one row, `kernel` for graphsim's own custom operators,
        `aten` for all other operations
    op: name of the function or of the aten operation
    module: path of the module that called it
    scopes: functions that it is part of, outermost first, such as `rope#3`
    inputs: the tensors that it reads
    outputs: shapes of its results
    flops: FLOPs by PyTorch's counter
    attributes: further properties that are needed to turn it into a node
    """

    name: str
    kind: str
    op: str
    module: str
    scopes: tuple[str, ...]
    inputs: tuple[RowInput, ...]
    outputs: tuple[tuple[Size, ...], ...]
    flops: Size = 0
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> tuple[Size, ...]:
        """Shape of the first result."""
        return self.outputs[0] if self.outputs else ()


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of a watched module.

    module: path of the module
    first, last: its rows are [first, last)
    taken, taken_shape: source and shape of its first floating-point argument
    others: its further floating-point arguments
    left, left_shape: source and shape of its first floating-point result
    """

    module: str
    first: int
    taken: str = ""
    taken_shape: tuple[Size, ...] = ()
    others: tuple[RowInput, ...] = ()
    last: int = -1
    left: str = ""
    left_shape: tuple[Size, ...] = ()


def expression(size: Any) -> Size:
    """The sympy expression of a symbolic size; other numbers are returned unchanged."""
    return size.node.expr if isinstance(size, torch.SymInt | torch.SymFloat) else size


def shape_of(tensor: torch.Tensor) -> tuple[Size, ...]:
    """The shape of a tensor as sympy expressions and numbers."""
    return tuple(expression(size) for size in tensor.shape)


def distinct(tensor: torch.Tensor) -> tuple[Size, ...]:
    """The shape of a tensor with 1 for broadcast dimensions (stride 0)."""
    repeats = (isinstance(stride, int) and stride == 0 for stride in tensor.stride())
    return tuple(1 if again else expression(n) for n, again in zip(tensor.shape, repeats, strict=True))


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in nested data."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
