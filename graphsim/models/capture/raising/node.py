"""A node of a captured block, whose sizes may depend on the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy


@dataclass(frozen=True, slots=True)
class StepSize:
    """A quantity of one step as an expression of the recording's symbols."""

    value: Any


@dataclass(slots=True, kw_only=True)
class Node:
    """One entry of a block.

    fields: its keys in a model file; those that depend on the step are `Sized`
    weights: names of the parameters that it holds
    elems: elements of its result
    source: for a value from outside, its source
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    elems: Any
    fields: dict[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    source: str = ""


def count(shape: Iterable[Any]) -> Any:
    """Number of elements of a shape."""
    return sympy.expand(math.prod(shape, start=sympy.Integer(1)))


KEEPING = frozenset(("kv_cache", "scan", "conv", "hand_on"))
"""Operations with effects other than their result."""


def used(nodes: Sequence[Node]) -> list[Node]:
    """The nodes without those whose result is unused, such as arithmetic on positions; the last is the block's."""
    kept: list[Node] = []
    taken: set[str] = set()
    for node in reversed(nodes):
        if not kept or node.name in taken or node.weights or node.op in KEEPING or node.fields.get("state"):
            kept.append(node)
            taken.update(name.partition(".")[0] for name in node.inputs)
    return kept[::-1]
