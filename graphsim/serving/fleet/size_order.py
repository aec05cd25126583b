"""In which order choices are simulated, and which of them one process takes together.

Tables of step times fill as a run asks for them, which takes longer than the run; choices whose steps take the same
times are therefore given to one process as one piece of work. Rounds, and therefore the answer, do not depend on
the executor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from graphsim.serving.fleet.size_choices import DEGREES, DESCRIBED, PREFILL

T = TypeVar("T")

ROUND = 16
"""Choices that are simulated before others are left out because of their results; the first two rounds have half."""
DEPLOYMENT = ("hardware", *DEGREES, *DESCRIBED, "strategy", "speculation", *PREFILL)
"""Choices on which graphs and their formulas depend."""
PRICES = (*DEPLOYMENT, "max_loras", "max_lora_rank")
"""Choices on which most of a step's time depends: the others change what is in a step."""


def groups_of(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[int]:
    """For each choice the number of its group, in order of appearance: of choices that are alike in these names."""
    known: list[list[Any]] = []
    found = []
    names = [name for name in names if any(name in row for row in rows)]
    for row in rows:
        values = [row.get(name) for name in names]
        at = next((i for i, other in enumerate(known) if _alike(values, other)), len(known))
        if at == len(known):
            known.append(values)
        found.append(at)
    return found


def _alike(values: Sequence[Any], others: Sequence[Any]) -> bool:
    pairs = zip(values, others, strict=True)
    return all(one is other or (type(one) is type(other) and one == other) for one, other in pairs)


def rounds_of(order: Sequence[int], groups: Sequence[int]) -> list[list[int]]:
    """Choices in their order, cut into rounds, where possible between two groups.

    A round has at least ROUND choices (half as many: the first two, before which nothing can be left out), and until
    its last group ends up to 2 ROUND.
    """
    rounds: list[list[int]] = []
    for i, number in enumerate(order):
        least = ROUND if len(rounds) > 2 else ROUND // 2
        full = bool(rounds) and len(rounds[-1]) >= least
        same = i > 0 and groups[number] == groups[order[i - 1]]
        if not rounds or (full and (not same or len(rounds[-1]) >= 2 * ROUND)):
            rounds.append([])
        rounds[-1].append(number)
    return rounds


def pieces_of(jobs: Sequence[T], group: Callable[[T], int], least: int) -> list[tuple[T, ...]]:
    """Jobs in pieces of one group each, the largest first; groups are divided only for want of pieces.

    least: pieces, so that there is one for everybody who works
    """
    by_group: dict[int, list[T]] = {}
    for job in jobs:
        by_group.setdefault(group(job), []).append(job)
    pieces = sorted(by_group.values(), key=len, reverse=True)
    while 0 < len(pieces) < min(least, len(jobs)):
        largest = pieces.pop(0)
        half = (len(largest) + 1) // 2
        pieces = sorted([*pieces, largest[:half], largest[half:]], key=len, reverse=True)
    return [tuple(piece) for piece in pieces]
