"""The steps of a program in an order that lets durations be timed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from graphsim.symbolic.duration import Duration

Step = tuple[int, Callable[..., Any], tuple[int, ...]]
"""Slot of the result, function, and slots of its operands."""

Together = Callable[[list[tuple[Any, Any]]], list[Any]]


@dataclass(frozen=True, slots=True)
class Staged:
    """What comes before any duration, durations by who times them together, and all the rest."""

    before: list[Step]
    durations: list[tuple[Together, list[Step]]]
    behind: list[Step]


def staged(steps: Iterable[Step]) -> Staged:
    """Steps by stage. A duration that depends on another one, or is timed alone, belongs to the rest."""
    late: set[int] = set()
    before, behind = list[Step](), list[Step]()
    durations: dict[Together, list[Step]] = {}
    for step in steps:
        slot, function, operands = step
        early = late.isdisjoint(operands)
        if not isinstance(function, Duration):
            (before if early else behind).append(step)
            if early:
                continue
        elif early and function.together is not None:
            durations.setdefault(function.together, []).append((slot, function.function, operands))
        else:
            behind.append(step)
        late.add(slot)
    return Staged(before, list(durations.items()), behind)
