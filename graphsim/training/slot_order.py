"""What each slot of a pipeline schedule waits for: worked out once for each schedule, whatever anything takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from graphsim.errors import GraphError
from graphsim.training.schedules import Schedule
from graphsim.training.slots import BOTH, FORWARD, INPUT, WEIGHT, Slot

KINDS = (FORWARD, INPUT, WEIGHT, BOTH, "send", "beside", "")
"""What takes time: slots by kind, a send, a forward with a backward beside it; "" takes none."""

Made = tuple[str, int, int, int]
"""Kind, micro-batch, stage and chunk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A slot on its stage, or the send of what it made. to: the stage that it is sent to; -1 for the slot itself."""

    stage: int
    slot: Slot
    to: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Slots and sends, stage by stage.

    overlapped: whether sends run beside the stage's slots
    waits: for each, the entries that come before: on its stage or its link, and what it needs for itself and for what
        runs beside it; the number of entries stands for none
    waves: entries that wait for those of earlier waves only
    stages, sends: of each, its stage, and whether it is a send
    kinds, parts: of each and of what runs beside it, which of KINDS it is and in which part of the model
    """

    entries: tuple[Entry, ...]
    overlapped: bool
    waits: NDArray[np.intp]
    waves: tuple[NDArray[np.intp], ...]
    stages: NDArray[np.intp]
    sends: NDArray[np.bool_]
    kinds: NDArray[np.intp]
    parts: NDArray[np.intp]


@lru_cache(maxsize=32)
def run_of(schedule: Schedule, overlapped: bool = True) -> Run:
    """What each slot and each send waits for.

    overlapped: whether sends of one direction queue on a link of their own while the stage goes on, or on the stage
    Raises GraphError where slots wait for each other in a circle.
    """
    routes = _Routes(schedule)
    entries, arriving = list(_entries(schedule, routes)), dict[Made, int]()
    for i, entry in enumerate(entries):
        for one in entry.slot.all if entry.to < 0 else (entry.slot,):
            for kind in (INPUT, WEIGHT) if one.kind == BOTH else (one.kind,):
                made = (kind, one.micro_batch, entry.stage, one.chunk)
                if entry.to < 0 or (made in arriving and kind != WEIGHT):
                    arriving[made] = i  # what was sent arrives with its send
    count = len(entries)
    waits = np.full((count, 3), count, dtype=np.intp)
    last: dict[tuple[int, int, str], int] = {}
    own = {made: i for i, entry in enumerate(entries) if entry.to < 0 for made in _makes(entry)}
    for i, entry in enumerate(entries):
        line = (entry.stage, entry.to, entry.slot.kind) if overlapped and entry.to >= 0 else (entry.stage, -1, "")
        waits[i, 0] = last.get(line, count)
        last[line] = i
        if entry.to >= 0:
            waits[i, 1] = own[next(_makes(entry))]
            continue
        for column, one in enumerate(entry.slot.all):
            source = routes.source(entry.stage, one)
            if source is not None:
                near = source[2] == entry.stage
                waits[i, 1 + column] = own[source] if near else arriving[source]
    kinds, parts = _places(schedule, entries)
    return Run(
        entries=tuple(entries), overlapped=overlapped, waits=waits, waves=tuple(_waves(waits)), kinds=kinds,
        parts=parts,
        stages=np.array([entry.stage for entry in entries]), sends=np.array([entry.to >= 0 for entry in entries]),
    )  # fmt: skip


def _places(schedule: Schedule, entries: list[Entry]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Kind and part of the model of each entry, and of what runs beside it."""
    part = {(s, c): schedule.part(s, c) for s in range(schedule.stages) for c in range(schedule.chunks)}
    code = {kind: i for i, kind in enumerate(KINDS)}
    kinds = np.full((len(entries), 2), code[""], dtype=np.intp)
    parts = np.zeros((len(entries), 2), dtype=np.intp)
    for i, entry in enumerate(entries):
        for j, one in enumerate(entry.slot.all):
            kinds[i, j] = code[one.kind if entry.to < 0 else "send"]
            parts[i, j] = part[entry.stage, one.chunk]
    return kinds, parts


def _makes(entry: Entry) -> Iterator[Made]:
    for one in entry.slot.all:
        for kind in (INPUT, WEIGHT) if one.kind == BOTH else (one.kind,):
            yield kind, one.micro_batch, entry.stage, one.chunk


def _entries(schedule: Schedule, routes: _Routes) -> Iterator[Entry]:
    for stage, order in enumerate(schedule.orders):
        for slot in order:
            yield Entry(stage, slot)
            for one in slot.all:
                to = routes.target(stage, one)
                if to not in (None, stage):
                    yield Entry(stage, Slot(one.kind, one.micro_batch, one.chunk), to or 0)


class _Routes:
    """The way of every micro-batch, by its direction."""

    def __init__(self, schedule: Schedule) -> None:
        ways = {0: schedule.route(0), 1: schedule.route(schedule.micro_batches - 1)}
        self.half = (schedule.micro_batches + 1) // 2 if schedule.name == "dualpipe" else schedule.micro_batches
        self.ways = ways
        self.places = {way: {place: i for i, place in enumerate(route)} for way, route in ways.items()}

    def _at(self, stage: int, slot: Slot) -> tuple[list[tuple[int, int]], int]:
        way = int(slot.micro_batch >= self.half)
        return self.ways[way], self.places[way][stage, slot.chunk]

    def source(self, stage: int, slot: Slot) -> Made | None:
        """What a slot waits for; None for the first part's forward."""
        route, at = self._at(stage, slot)
        if slot.kind == WEIGHT:
            return INPUT, slot.micro_batch, stage, slot.chunk
        if slot.kind == FORWARD:
            return (FORWARD, slot.micro_batch, *route[at - 1]) if at else None
        if at + 1 < len(route):
            return INPUT, slot.micro_batch, *route[at + 1]
        return FORWARD, slot.micro_batch, stage, slot.chunk

    def target(self, stage: int, slot: Slot) -> int | None:
        """The stage that takes what a slot makes; None where nobody does."""
        route, at = self._at(stage, slot)
        if slot.kind == FORWARD:
            return route[at + 1][0] if at + 1 < len(route) else None
        return route[at - 1][0] if slot.kind != WEIGHT and at else None


def _waves(waits: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Entries by the longest chain of entries before them."""
    count = len(waits)
    left = [0] * count
    followers: list[list[int]] = [[] for _ in range(count + 1)]
    for i, sources in enumerate(waits.tolist()):
        for source in {*sources} - {count}:
            followers[source].append(i)
            left[i] += 1
    wave, seen = [i for i in range(count) if not left[i]], 0
    while wave:
        yield np.array(wave, dtype=np.intp)
        seen += len(wave)
        following = []
        for i in wave:
            for j in followers[i]:
                left[j] -= 1
                if not left[j]:
                    following.append(j)
        wave = following
    if seen < count:
        raise GraphError("the slots of the pipeline schedule wait for each other in a circle")
