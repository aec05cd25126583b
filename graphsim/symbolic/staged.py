"""The steps of a program in an order that lets durations be timed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from graphsim.symbolic.duration import Duration

ProgramStep = tuple[int, Callable[..., Any], tuple[int, ...]]
"""Slot of the result, function, and slots of its operands."""

TimedTogether = Callable[[list[tuple[Any, Any]]], list[Any]]


@dataclass(frozen=True, slots=True)
class Staged:
    """What comes before any duration, durations by who times them together, and all the rest."""

    before: list[ProgramStep]
    durations: list[tuple[TimedTogether, list[ProgramStep]]]
    behind: list[ProgramStep]


def staged(steps: Iterable[ProgramStep]) -> Staged:
    """Steps by stage. A duration that depends on another one, or is timed alone, belongs to the rest."""
    late: set[int] = set()
    before, behind = list[ProgramStep](), list[ProgramStep]()
    durations: dict[TimedTogether, list[ProgramStep]] = {}
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
