"""Explanation of a training step: its critical path by direction, kind and cause, and its memory by part."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from graphsim.analysis.explanation import Explanation, TimePart, datasheet_s, part_of
from graphsim.display.nodes import entries, number
from graphsim.display.training import DIRECTIONS, MEMORY_PARTS, kind_text
from graphsim.graph.critical import path_of
from graphsim.ops import Direction
from graphsim.ops.kinds import kind_of
from graphsim.result import COVERAGE
from graphsim.training.estimate import TrainEstimate
from graphsim.training.uncertain import WHOLE
from graphsim.training.view import kinds_of, method_text
from graphsim.units import bytes_text, seconds_text

QUANTITY = "step_s"


def explained_step(estimate: TrainEstimate, scenario: int = 0) -> Explanation:
    """The parts of an optimizer step, which add up to its time, and the findings."""
    total_s = number(estimate.step_s, scenario)
    parts = _parts(estimate, total_s, scenario)
    title = f"{estimate.basis}; {method_text(estimate)}"
    whole = Explanation(title=title, totals={QUANTITY: total_s}, parts=tuple(parts))
    findings = [
        f"{QUANTITY}: {datasheet_s(whole, QUANTITY) / total_s:.0%} of it is the datasheet's time for the work",
        *_dominating(estimate, scenario), *_certainty(estimate, scenario), *_memory(estimate, scenario),
    ]  # fmt: skip
    return Explanation(
        title=title, totals=whole.totals, parts=whole.parts, findings=tuple(findings), notes=estimate.notes
    )


def _parts(estimate: TrainEstimate, total_s: float, scenario: int) -> list[TimePart]:
    """The critical path's operations by direction and kind, times their number of runs, and the remainder."""
    path, accumulate = set(path_of(estimate.graph, scenario)), number(estimate.setup.accumulate, scenario)
    found: dict[tuple[str, str, str], TimePart] = {}
    for entry in entries(estimate.graph):
        if entry.name in path and not entry.op.once:
            direction = entry.op.direction
            label = f"{DIRECTIONS[direction]}: {kind_text(kind_of(entry.op))}"
            part = part_of(QUANTITY, entry, scenario, label, 1.0 if direction is Direction.UPDATE else accumulate)
            found[part.key] = found[part.key].plus(part) if part.key in found else part
    parts = sorted((part for part in found.values() if part.total_s), key=lambda part: -part.total_s)
    for name, label in (("exposed", "exposed communication"), ("bubble", "pipeline bubble")):
        seconds = number(estimate.parts_s.get(name, 0.0), scenario)
        if seconds:
            parts.append(TimePart(quantity=QUANTITY, part=label, op_type="", other_s=seconds))
    rest_s = total_s - math.fsum(part.total_s for part in parts)
    if abs(rest_s) > 1e-9 * total_s:
        parts.append(TimePart(quantity=QUANTITY, part="overlap, other stages", op_type="", other_s=rest_s))
    return parts


def _dominating(estimate: TrainEstimate, scenario: int) -> Iterable[str]:
    """Sentences on the largest part of the device's time, and on the overhead of an adapter."""
    kinds = kinds_of(estimate, scenario)
    busy = math.fsum(kinds.values())
    (direction, kind), seconds = max(kinds.items(), key=lambda item: item[1])
    yield f"busy the longest: {direction}, {kind} ({seconds / busy:.0%} of the device's busy time)"
    lora = math.fsum(seconds for (_, kind), seconds in kinds.items() if kind == "LoRA")
    if lora:
        yield f"the adapter's own operations take {lora / busy:.0%} of the busy time"
    forward, backward = (
        math.fsum(seconds for (name, _), seconds in kinds.items() if name == direction)
        for direction in (DIRECTIONS[Direction.FORWARD], DIRECTIONS[Direction.BACKWARD])
    )
    if forward:
        yield f"the backward pass is busy for {backward / forward:.2f} times as long as the forward pass"


def _certainty(estimate: TrainEstimate, scenario: int) -> Iterable[str]:
    """The range in which the time is expected, and the component whose errors contribute most to it."""
    uncertainty = estimate.uncertainty
    if uncertainty.missing:
        return
    low, high = (number(end, scenario) for end in estimate.interval(QUANTITY, COVERAGE))
    widths = uncertainty.widths(COVERAGE, scenario)
    which = next(name for name in widths if name != WHOLE)
    yield (
        f"{QUANTITY}: {seconds_text(low)} to {seconds_text(high)} in {COVERAGE:.0%} of cases; the least certain of its "
        f"kernels are of the family '{which}', whose errors alone spread it over {widths[which]:.0%}, what whole steps "
        f"are off by over {widths[WHOLE]:.0%}"
    )


def _memory(estimate: TrainEstimate, scenario: int) -> Iterable[str]:
    """Sentences on the largest parts of the memory, and on when the peak occurs."""
    memory = estimate.memory
    total = number(memory.total_bytes, scenario)
    sizes = {name: number(getattr(memory, f"{name}_bytes"), scenario) for name in MEMORY_PARTS}
    largest = max(sizes, key=lambda name: sizes[name])
    moment = str(np.ravel(memory.peak_moment)[min(scenario, np.size(memory.peak_moment) - 1)])
    yield f"memory is fullest at: {moment} ({bytes_text(total)}); {sizes[largest] / total:.0%} of it are {largest}"
