"""What is recorded of a step: operations in order, and calls of layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

Size = Any
"""A number, or a sympy expression of the step's symbols."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One input of a row: the row, weight, state or input that it comes from, and what is taken of it.

    shape: of what is distinct: a dimension along which one element is repeated counts one
    offset: of its first element, which tells slices of one value apart; with the place of a row's further results
    """

    source: str
    shape: tuple[Size, ...]
    offset: Size = 0


@dataclass(slots=True, kw_only=True)
class Row:
    """One operation.

    kind: `linear`, `attention`, `norm`, … for calls that are kept whole, `aten` for the rest, `kernel` for graphsim's
        own custom operations
    op: name of the function or of the aten operation
    module: path of the module that called it
    scopes: what it is part of, outermost first: `rope#3`
    flops: as PyTorch's counter has them
    attributes: of a call kept whole, what its raising needs
    """

    name: str
    kind: str
    op: str
    module: str
    scopes: tuple[str, ...]
    inputs: tuple[Taken, ...]
    outputs: tuple[tuple[Size, ...], ...]
    flops: Size = 0
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> tuple[Size, ...]:
        """Shape of the first result."""
        return self.outputs[0] if self.outputs else ()


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of a module that is watched: rows [first, last), what its first tensor came from, and what it left.

    others: its further tensors
    """

    module: str
    first: int
    taken: str = ""
    taken_shape: tuple[Size, ...] = ()
    others: tuple[Taken, ...] = ()
    last: int = -1
    left: str = ""
    left_shape: tuple[Size, ...] = ()


def expression(size: Any) -> Size:
    """The sympy expression of a symbolic size; a number as it is."""
    return size.node.expr if isinstance(size, torch.SymInt | torch.SymFloat) else size


def shape_of(tensor: torch.Tensor) -> tuple[Size, ...]:
    """The shape in expressions."""
    return tuple(expression(size) for size in tensor.shape)


def distinct(tensor: torch.Tensor) -> tuple[Size, ...]:
    """The shape without the dimensions along which one element is repeated, which count one."""
    repeats = (isinstance(stride, int) and stride == 0 for stride in tensor.stride())
    return tuple(1 if again else expression(n) for n, again in zip(tensor.shape, repeats, strict=True))


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors of nested data."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
