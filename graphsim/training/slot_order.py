"""What each slot of a pipeline schedule waits for: computed once per schedule, independent of times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from graphsim.errors import GraphError
from graphsim.training.schedules import Schedule
from graphsim.training.slots import BOTH, FORWARD, INPUT, WEIGHT, Slot

KINDS = (FORWARD, INPUT, WEIGHT, BOTH, "send", "beside", "")
"""Kinds of entries with a time: slots by kind, a send, a forward together with a backward; "" takes none."""

_CODE = {kind: i for i, kind in enumerate(KINDS)}
_NONE, _SEND = _CODE[""], _CODE["send"]
_MADE = np.array([{FORWARD: 0, INPUT: 1, BOTH: 1, WEIGHT: 2}.get(kind, 0) for kind in KINDS])
"""The result of a slot, by kind: a value, the inputs' gradient, the weights' gradient. A `BW` slot keeps its weights'
gradient.
"""

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Entry:
    """A slot on its stage, or the send of its result.

    to: the receiving stage; -1 for the slot itself
    """

    stage: int
    slot: Slot
    to: int = -1


@dataclass(frozen=True, eq=False)
class Run:
    """Slots and sends, stage by stage.

    overlapped: whether sends overlap the stage's slots
    waits: for each, the entries that come before: on its stage or its link, and what it needs for itself and for what
        runs concurrently; the number of entries stands for none
    waves: entries that wait for those of earlier waves only
    stages, targets: of each, its stage, and the one that it is sent to, -1 for a slot
    kinds, parts: of each and of what runs concurrently, which of KINDS it is and in which part of the model
    """

    schedule: Schedule
    overlapped: bool
    waits: Indices
    waves: tuple[Indices, ...]
    stages: Indices
    targets: Indices
    kinds: Indices
    parts: Indices
    of_slot: Indices
    beside: NDArray[np.bool_]

    @property
    def sends(self) -> NDArray[np.bool_]:
        """Mask of the entries that are sends."""
        return self.targets >= 0

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The entries, by number."""
        slots = [slot for order in self.schedule.orders for slot in order]
        found = []
        for stage, to, number, second in zip(self.stages, self.targets, self.of_slot, self.beside, strict=True):
            slot = slots[number]
            if to >= 0:
                one = slot.all[int(second)]
                slot = Slot(one.kind, one.micro_batch, one.chunk)
            found.append(Entry(int(stage), slot, int(to)))
        return tuple(found)


@lru_cache(maxsize=32)
def run_of(schedule: Schedule, overlapped: bool = True) -> Run:
    """The dependencies of each slot and each send.

    overlapped: whether sends of one direction queue on a link of their own while the stage continues, or on the stage
        Raises GraphError if slots wait for each other in a cycle.
    """
    slots = _Slots.of(schedule)
    routes = _Routes(schedule)
    targets = routes.targets(slots)
    after = np.cumsum(1 + (targets >= 0).sum(axis=1))
    own = np.concatenate([[0], after[:-1]])  # index of each slot among the entries; its sends follow
    sent, second = np.nonzero(targets >= 0)
    place = own[sent] + 1 + (second & (targets[sent, 0] >= 0))
    count = int(after[-1]) if len(after) else 0
    of_slot, to, beside = np.zeros(count, np.intp), np.full(count, -1, np.intp), np.zeros(count, bool)
    of_slot[own], of_slot[place] = np.arange(len(own)), sent
    to[place], beside[place] = targets[sent, second], second.astype(bool)
    stages = slots.stages[of_slot]
    kinds, parts = slots.kinds[of_slot], routes.parts(slots)[of_slot]
    parts[place, 0], parts[place, 1] = parts[place, second], 0
    sent_kinds = slots.kinds[sent, second]
    kinds[place] = _SEND, _NONE
    waits = np.full((count, 3), count, dtype=np.intp)
    waits[:, 0] = _ahead(stages, to, own, place, sent_kinds, overlapped)
    waits[place, 1] = own[sent]
    waits[own, 1:] = routes.needs(slots, own, place, sent, second, count)
    return Run(
        schedule=schedule, overlapped=overlapped, waits=waits, waves=tuple(_waves(waits)), stages=stages, targets=to,
        kinds=kinds, parts=parts, of_slot=of_slot, beside=beside,
    )  # fmt: skip


def _ahead(stages: Indices, to: Indices, own: Indices, place: Indices, kinds: Indices, overlapped: bool) -> Indices:
    """The previous entry of each on the same resource: a stage, or its link to another one in one direction."""
    count = len(stages)
    lines = stages.astype(np.intp) * (stages.max(initial=0) + 2) * len(KINDS)
    if overlapped:
        lines[place] += (to[place] + 1) * len(KINDS) + kinds
    order = np.argsort(lines, kind="stable")
    found = np.full(count, count, dtype=np.intp)
    same = lines[order[1:]] == lines[order[:-1]]
    found[order[1:][same]] = order[:-1][same]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Slots:
    """All slots of a schedule, stage by stage. kinds, micro_batches, chunks: of each, and of what runs concurrently."""

    stages: Indices
    kinds: Indices
    micro_batches: Indices
    chunks: Indices

    @classmethod
    def of(cls, schedule: Schedule) -> _Slots:
        """As arrays of numbers instead of objects."""
        rows = [
            (stage, _CODE[one.kind], one.micro_batch, one.chunk, *_beside(one.beside))
            for stage, order in enumerate(schedule.orders)
            for one in order
        ]
        table = np.array(rows, dtype=np.intp).reshape(-1, 7)
        return cls(table[:, 0], table[:, [1, 4]], table[:, [2, 5]], table[:, [3, 6]])


def _beside(slot: Slot | None) -> tuple[int, int, int]:
    return (_NONE, 0, 0) if slot is None else (_CODE[slot.kind], slot.micro_batch, slot.chunk)


class _Routes:
    """The route of every micro-batch, by direction."""

    def __init__(self, schedule: Schedule) -> None:
        m, shape = schedule.micro_batches, (2, schedule.stages, schedule.chunks)
        self.schedule, self.half = schedule, (m + 1) // 2 if schedule.name == "dualpipe" else m
        self.before, self.behind = (np.full((*shape, 2), -1, dtype=np.intp) for _ in range(2))
        for way, micro_batch in enumerate((0, m - 1)):
            route = schedule.route(micro_batch)
            for one, following in zip(route, route[1:], strict=False):
                self.behind[(way, *one)] = following
                self.before[(way, *following)] = one

    def _at(self, table: Indices, slots: _Slots) -> Indices:
        """Stage and chunk of each slot's neighbour on its route; -1 for none."""
        way = (slots.micro_batches >= self.half).astype(np.intp)
        return table[way, slots.stages[:, None], slots.chunks]

    def targets(self, slots: _Slots) -> Indices:
        """The other stage that takes a slot's result; -1 for none."""
        onward = np.where(
            slots.kinds == _CODE[FORWARD], self._at(self.behind, slots)[..., 0], self._at(self.before, slots)[..., 0]
        )
        sends = np.isin(slots.kinds, [_CODE[kind] for kind in (FORWARD, INPUT, BOTH)])
        return np.where(sends & (onward != slots.stages[:, None]), onward, -1)

    def parts(self, slots: _Slots) -> Indices:
        """Which part of the model each works in; 0 where nothing runs concurrently."""
        stages, chunks = self.schedule.stages, self.schedule.chunks
        table = np.array([[self.schedule.part(s, c) for c in range(chunks)] for s in range(stages)], dtype=np.intp)
        return np.where(slots.kinds == _NONE, 0, table[slots.stages[:, None], slots.chunks])

    def needs(self, slots: _Slots, own: Indices, place: Indices, sent: Indices, second: Indices, count: int) -> Indices:
        """The entry after which each slot's input is available; `count` if it needs none.

        own, place: indices of slots and sends
        sent, second: of a send, its slot, and whether it belongs to the
            backward that runs with it
        """
        made = self._number(_MADE[slots.kinds], slots.micro_batches, slots.stages[:, None], slots.chunks)
        there = np.full(made.max(initial=0) + 1, count, dtype=np.intp)
        real = slots.kinds != _NONE
        there[made[real]] = np.broadcast_to(own[:, None], made.shape)[real]
        arrived = there.copy()
        arrived[made[sent, second]] = place
        forward, weight = slots.kinds == _CODE[FORWARD], slots.kinds == _CODE[WEIGHT]
        before, behind = self._at(self.before, slots), self._at(self.behind, slots)
        last = behind[..., 0] < 0
        at = np.where(forward[..., None], before, behind)
        here = np.stack([np.broadcast_to(slots.stages[:, None], made.shape), slots.chunks], axis=-1)
        at = np.where((weight | (~forward & last))[..., None], here, at)
        what = np.where(forward | (~weight & last), 0, 1)
        numbers = self._number(what, slots.micro_batches, at[..., 0], at[..., 1])
        near = at[..., 0] == slots.stages[:, None]
        safe = np.clip(numbers, 0, len(there) - 1)
        found = np.where(near, there[safe], arrived[safe])
        return np.where(real & (at[..., 0] >= 0), found, count)

    def _number(self, what: Indices, micro_batches: Indices, stages: Indices, chunks: Indices) -> Indices:
        """A key for a result by kind, location and micro-batch."""
        m, p, c = self.schedule.micro_batches, self.schedule.stages, self.schedule.chunks
        found: Indices = ((what * m + micro_batches) * p + stages) * c + chunks
        return found


def _waves(waits: Indices) -> Iterator[Indices]:
    """Entries by the longest chain of entries before them."""
    count = len(waits)
    ordered = np.sort(waits, axis=1)
    fresh = (ordered < count) & np.concatenate([np.ones((count, 1), bool), ordered[:, 1:] != ordered[:, :-1]], axis=1)
    left = fresh.sum(axis=1)
    follower, column = np.nonzero(fresh)
    source = ordered[follower, column]
    order = np.argsort(source, kind="stable")
    follower, first = follower[order], np.searchsorted(source[order], np.arange(count + 1))
    wave, seen = np.nonzero(left == 0)[0], 0
    while len(wave):
        yield wave
        seen += len(wave)
        reached = np.concatenate([follower[first[i] : first[i + 1]] for i in wave.tolist()])
        np.subtract.at(left, reached, 1)
        wave = np.unique(reached[left[reached] == 0])
    if seen < count:
        raise GraphError("the slots of the pipeline schedule wait for each other in a cycle")
