"""Memory that PyTorch's caching allocator reserves for training steps: their tensors, replayed in the order of the
graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from graphsim.graph.walking import walk
from graphsim.ops import Direction
from graphsim.training.allocations import LOSS, At, Run, Turn, turn_of
from graphsim.training.caching_allocator import CachingAllocator, Event, OutOfMemory
from graphsim.training.moments import Persistent
from graphsim.training.sections import sections_of
from graphsim.training.step import Stage
from graphsim.training.stored import held
from graphsim.units import Num

STEPS = 2
"""Number of replayed steps: the first has no optimizer states yet, the second has; later ones repeat the second."""

MICRO_BATCHES = 2
"""Number of replayed micro-batches of an accumulated step: the first finds no gradients, all others do."""

SAME = 1e-3
"""Gradients whose sizes differ by less count as one tensor."""

MOST_REPLAYED = 16
"""Most scenarios that are replayed individually; a replay takes some tenths of a second."""

CONTEXT_BYTES = 500.0 * 2**20
"""Device memory of the CUDA context and libraries before any tensor: typical of data-centre GPUs with CUDA 12 (from
experience, no source).
"""

PAGE = 2.0 * 2**20
"""Reserved memory is a multiple of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A device's training steps in one scenario: sizes of tensors in bytes.

    there: weights and everything else allocated from the start
    states, copies: of the optimizer, from its first step
        on and in each step only; micro_batches: number of micro-batches that need to be distinguished; in_flight:
        number of them at once
    keeps: whether gradients stay allocated in the next step
    share: share of each gradient's bytes that stays on the
        device
    defers: whether gradients stay whole until the last micro-batch
    again: whether a second value as large as what a turn saves is allocated throughout the backward pass of all such
        turns
    """

    turns: list[Turn]
    there: list[float]
    states: list[float]
    copies: list[float]
    micro_batches: int = 1
    in_flight: int = 1
    keeps: bool = False
    share: float = 1.0
    defers: bool = False
    again: bool = False


def reserved_bytes(stage: Stage, persistent: Persistent, total_bytes: Num, in_flight: Num, capacity_bytes: Num) -> Num:
    """Peak bytes that a device of a stage reserves in its first steps, per scenario.

    If the device runs out of memory even after unused segments are returned, the bytes that a larger device would
    reserve. Never less than the allocated bytes.
    total_bytes: allocated at the fullest moment
    in_flight: micro-batches that the stage holds at once, at most
    capacity_bytes: of the device. For more than MOST_REPLAYED scenarios, the allocated bytes in whole pages.
    """
    if np.size(total_bytes) > MOST_REPLAYED:
        return in_pages(total_bytes)
    found = []
    for i in range(np.size(total_bytes)):
        program = program_of(stage, persistent, in_flight, partial(_number, i))
        events, room = events_of(program), _number(i, capacity_bytes) - CONTEXT_BYTES
        found.append(_replayed(events, room) or _replayed(events, np.inf))
    least: Num = np.maximum(np.reshape(found, np.shape(total_bytes)), in_pages(total_bytes))[()]
    return least


def in_pages(size: Num) -> Num:
    """Bytes as whole pages, which is the least that an allocator holds for them."""
    return np.ceil(size / PAGE) * PAGE


def _replayed(events: list[Event], capacity_bytes: float) -> float:
    """Peak reserved bytes; 0 if memory runs out."""
    allocator = CachingAllocator(capacity_bytes=capacity_bytes)
    try:
        allocator.replay(events)
    except OutOfMemory:
        return 0.0
    return float(allocator.peak_reserved_bytes)


def _number(scenario: int, number: Num) -> float:
    """A number of one scenario."""
    return float(np.ravel(number)[scenario]) if np.ndim(number) else float(number)


def program_of(stage: Stage, persistent: Persistent, in_flight: Num, at: At) -> Program:
    """The tensors of a stage's steps in one scenario."""
    setup, sections = stage.setup, sections_of(stage.sharded)
    behind = {section.of: section for section in sections if section.backward}
    whole = setup.recompute == "full"
    turns = [
        turn_of(section, behind.get(section.name), setup.recipe, whole and section.repeated, at)
        for section in sections
        if not section.backward
    ]
    stored, states, trained = list[float](), list[float](), list[float]()
    for _, op, times in walk(stage.sharded):
        if op.direction is Direction.FORWARD:
            own = held(op, setup)
            stored += [at(own.frozen_bytes + own.trained_bytes)] * times
            states += [at(own.state_bytes) / 2.0] * (2 * times)
            trained += [at(op.trained * op.parameters)] * times
    further = [at(each) for each in (persistent.gathered, persistent.reducing, persistent.overhead)]
    return Program(
        turns=turns,
        there=[*_dealt(at(persistent.weights + persistent.adapters), stored), *further],
        states=_dealt(at(persistent.optimizer), states),
        copies=_dealt(at(persistent.update), trained),
        micro_batches=MICRO_BATCHES if at(setup.accumulate) > 1 else 1,
        in_flight=max(1, round(at(in_flight))),
        keeps=setup.recipe.keeps_gradients,
        share=_stays(turns, persistent, at),
        defers=at(persistent.whole) > 0.0,
        again=bool(at(persistent.again)),
    )


def _stays(turns: list[Turn], persistent: Persistent, at: At) -> float:
    """Ratio of the gradient bytes that stay on the device to those that a backward pass produces: its share, in the
    kept format.
    """
    made = sum(turn.times * run.gradient for turn in turns for run in turn.backward)
    if not at(persistent.gradient_share) or not made:
        return 0.0
    return at(persistent.gradients) / made


def _dealt(total: float, sizes: list[float]) -> list[float]:
    """A total split into tensors in proportion to these sizes."""
    whole = sum(sizes)
    return [total * size / whole for size in sizes if size] if whole else []


def events_of(program: Program) -> list[Event]:
    """Allocation events of STEPS steps."""
    tensors = Tensors()
    for size in program.there:
        tensors.make(size)
    gradients: dict[str, list[int]] = {}
    for step in range(STEPS):
        if program.in_flight > 1:
            _micro_batches(program, tensors, gradients, program.in_flight)
        else:
            for number in range(program.micro_batches):
                reduces = number == program.micro_batches - 1 or not program.defers
                _micro_batches(program, tensors, gradients, reduces=reduces)
        if not step:
            for size in program.states:
                tensors.make(size)
        for copy in [tensors.make(size) for size in program.copies]:
            tensors.drop(copy)
        if not program.keeps:
            for each in gradients.values():
                for number in each:
                    tensors.drop(number)
            gradients.clear()
    return tensors.events


def _micro_batches(
    program: Program, tensors: Tensors, gradients: dict[str, list[int]], count: int = 1, *, reduces: bool = True
) -> None:
    """That many forward passes, then as many backward passes.

    reduces: whether gradients are reduced to shards
    """
    kept: dict[tuple[int, str, int], dict[str, list[int]]] = {}
    for batch in range(count):
        given: list[int] = []
        for turn in program.turns:
            for i in range(turn.times):
                given, kept[batch, turn.name, i] = _forward(turn, given, tensors)
        _drop_all([given], tensors)
    for batch in range(count):
        given = []
        for turn in reversed(program.turns):
            again = [tensors.make(turn.kept_bytes) for _ in range(turn.times * program.again)]
            for i in reversed(range(turn.times)):
                given, made = _backward(turn, given, kept[batch, turn.name, i], tensors)
                for name, size in made:
                    place = f"{turn.name}.{i}.{name}"
                    if reduces and program.defers:
                        _drop_all([gradients.pop(place, [])], tensors)
                    _gather(place, size, program.share if reduces else 1.0, gradients, tensors)
            _drop_all([again], tensors)
        _drop_all([given], tensors)


def _gather(place: str, size: float, share: float, gradients: dict[str, list[int]], tensors: Tensors) -> None:
    """A weight's gradient becomes the persistent one, is reduced to the device's share in its format, or is added to
    it.
    """
    whole = tensors.make(size)
    if place not in gradients:
        gradients[place] = [tensors.hold(whole) if abs(share - 1.0) < SAME else tensors.make(size * share)]
    tensors.drop(whole)


def _forward(turn: Turn, given: list[int], tensors: Tensors) -> tuple[list[int], dict[str, list[int]]]:
    """The tensors that the turn passes on, and those that it saves."""
    alive: dict[str, list[int]] = {}
    kept: dict[str, list[int]] = {}
    for run in turn.forward:
        if run.enters:
            alive[run.name], given = given, []
            for name, size in run.kept:
                there = [tensors.hold(number) for number in alive[run.name]]
                kept[name] = [*there, tensors.make(size - sum(map(tensors.size, there)))]
        else:
            _make(run, alive, kept, tensors)
        _end(run, alive, tensors)
    result = alive.pop(turn.forward[-1].name, [])
    _drop_all([given, *alive.values()], tensors)
    return result, kept


def _make(run: Run, alive: dict[str, list[int]], kept: dict[str, list[int]], tensors: Tensors) -> None:
    passing = [tensors.make(size) for size in run.passing]
    mine = alive.setdefault(run.name, [])
    for name, size in run.kept:
        kept[name] = [tensors.make(size)]
        if name in run.results:
            mine.append(tensors.hold(kept[name][0]))
    mine.append(tensors.make(run.own))
    _drop_all([passing], tensors)


def _end(run: Run, alive: dict[str, list[int]], tensors: Tensors) -> None:
    for name in run.over:
        _drop_all([alive.pop(name, [])], tensors)


def _drop_all(groups: list[list[int]], tensors: Tensors) -> None:
    for group in groups:
        for number in group:
            tensors.drop(number)


def _backward(
    turn: Turn, given: list[int], kept: dict[str, list[int]], tensors: Tensors
) -> tuple[list[int], list[tuple[str, float]]]:
    """The gradient that the turn passes on, and the weights' gradients."""
    alive: dict[str, list[int]] = {}
    made: list[tuple[str, float]] = []
    for run in turn.backward:
        if run.name in kept:
            alive[run.name] = kept.pop(run.name)
            if turn.whole:
                alive[f"{run.name} held"] = [tensors.hold(number) for number in alive[run.name]]
        elif run.enters:
            alive[run.name], given = given, []
        else:
            _make(run, alive, {}, tensors)
            if run.gradient:
                made.append((run.name, run.gradient))
        if run.loss:
            _drop_all([kept.pop(LOSS, [])], tensors)
        _end(run, alive, tensors)
    result = alive.pop(turn.backward[-1].name, []) if turn.backward else []
    _drop_all([given, *alive.values(), *kept.values()], tensors)
    return result, made


@dataclass(slots=True)
class Tensors:
    """Allocations by number; reference-counted; empty tensors do not count."""

    events: list[Event] = field(default_factory=list)
    _uses: dict[int, int] = field(default_factory=dict)
    _sizes: dict[int, float] = field(default_factory=dict)
    _count: int = 0

    def make(self, size: float) -> int:
        """A new one, with one reference; 0 for none."""
        if size < 1.0:
            return 0
        self._count += 1
        self._uses[self._count] = 1
        self._sizes[self._count] = size
        self.events.append((str(self._count), size))
        return self._count

    def size(self, number: int) -> float:
        """Bytes of a tensor that is allocated."""
        return self._sizes.get(number, 0.0)

    def hold(self, number: int) -> int:
        """One more reference."""
        if number:
            self._uses[number] += 1
        return number

    def drop(self, number: int) -> None:
        """One reference less."""
        if not number:
            return
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._uses[number], self._sizes[number]
            self.events.append((str(number), 0.0))
