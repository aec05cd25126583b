"""The times of a pipeline's slots: longest paths over launch orders and sends, for all scenarios at once.

A slot starts when its stage has finished the previous one and its input has arrived: the value of the previous part for
a forward, the gradient of the next part for a backward. Sends of one direction queue on their link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from graphsim.errors import GraphError
from graphsim.training.schedules import Schedule
from graphsim.training.slot_order import KINDS, Run, run_of
from graphsim.training.slots import BOTH, FORWARD, INPUT, WEIGHT
from graphsim.units import Num

Times = NDArray[np.float64]
PerPart = Num | Sequence[Num]
"""One number for all parts of the model, or a list or tuple with one for each in the order of the forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pipelined:
    """The times of a pipelined step, in seconds.

    step_s: from one step's start to the next one's
    makespan_s: from the first slot's start to the last one's finish
    busy_s: compute of each stage
    bubble_s: step_s minus the busy time of the busiest stage
    in_flight: per stage, see `in_flight`
    start_s, finish_s: of every entry of `run` (first axis), over scenarios
    """

    step_s: Num
    makespan_s: Num
    busy_s: tuple[Num, ...]
    bubble_s: Num
    in_flight: tuple[float, ...]
    start_s: Times
    finish_s: Times
    run: Run


def pipelined_s(
    schedule: Schedule,
    forward_s: PerPart,
    backward_s: PerPart,
    weight_s: PerPart = 0.0,
    send_s: Num = 0.0,
    *,
    overlapped: bool = True,
    beside_s: PerPart | None = None,
    synchronous: bool | None = None,
) -> Pipelined:
    """How long a step takes under a schedule.

    forward_s, backward_s, weight_s: seconds of one micro-batch in each part of the model (`Schedule.part`); backward_s
        is that of the inputs' gradients, without weight_s
    send_s: seconds to send a value or a gradient to another stage
    overlapped: whether the stage computes during the transfer
    beside_s: seconds of a part's forward together with a backward of the same stage (DualPipe); one after another by
        default
    synchronous: whether all stages end the step together; the schedule's own by default
    Raises GraphError if a sequence does not have one entry per part of the model.
    """
    run = run_of(schedule, overlapped)
    durations = _durations(schedule, run, (forward_s, backward_s, weight_s), beside_s, send_s)
    finish = _finish_one(run, durations) if durations.ndim == 1 else _finish(run, durations)
    start = finish - durations
    on = [(run.stages == stage) & ~run.sends for stage in range(schedule.stages)]
    busy = [durations[here].sum(axis=0) for here in on]
    makespan = finish[~run.sends].max(axis=0)
    spans = [finish[here].max(axis=0) - start[here].min(axis=0) for here in on]
    together = schedule.synchronous if synchronous is None else synchronous
    step = makespan if together else np.max(spans, axis=0)
    return Pipelined(
        step_s=step[()], makespan_s=makespan[()], busy_s=tuple(each[()] for each in busy),
        bubble_s=(step - np.max(busy, axis=0))[()], in_flight=in_flight(schedule), start_s=start, finish_s=finish,
        run=run,
    )  # fmt: skip


def _listed(schedule: Schedule, name: str, value: PerPart) -> list[Times]:
    """A number, or an array over scenarios, for each part."""
    listed = list(value) if isinstance(value, list | tuple) else [value] * schedule.parts
    if len(listed) != schedule.parts:
        raise GraphError(f"{name} has {len(listed)} entries; expected one for each of {schedule.parts} parts")
    return [np.asarray(each, dtype=float) for each in listed]


def _durations(
    schedule: Schedule, run: Run, passes: tuple[PerPart, PerPart, PerPart], beside_s: PerPart | None, send_s: Num
) -> Times:
    """Seconds of every entry, over scenarios."""
    forward, backward, weight = passes
    given = {"forward_s": forward, "backward_s": backward, "weight_s": weight, "send_s": send_s,
             "beside_s": 0.0 if beside_s is None else beside_s}  # fmt: skip
    listed = {name: _listed(schedule, name, value) for name, value in given.items()}
    shape = np.broadcast_shapes(*(each.shape for values in listed.values() for each in values))
    table = {
        name: np.stack([np.broadcast_to(each, shape) for each in values]) for name, values in listed.items()
    }  # parts by scenarios
    of_kind = {
        FORWARD: table["forward_s"], INPUT: table["backward_s"], WEIGHT: table["weight_s"],
        BOTH: table["backward_s"] + table["weight_s"], "send": table["send_s"], "beside": table["beside_s"],
        "": np.zeros((schedule.parts, *shape)),
    }  # fmt: skip
    kinds = run.kinds
    if beside_s is not None:
        paired = (kinds[:, 1] != KINDS.index(""))[:, None]
        kinds = np.where(paired, (KINDS.index("beside"), KINDS.index("")), kinds)
    found: Times = np.stack([of_kind[kind] for kind in KINDS])[kinds, run.parts].sum(axis=1)
    return found


def _finish(run: Run, durations: Times) -> Times:
    """When each entry ends, wave by wave."""
    count = len(durations)
    done = np.full((count + 1, *durations.shape[1:]), -np.inf)
    for wave in run.waves:
        done[wave] = np.maximum(done[run.waits[wave]].max(axis=1), 0.0) + durations[wave]
    return done[:count]


def _finish_one(run: Run, durations: Times) -> Times:
    """The same for a single scenario, without arrays, which do not pay off for its short waves."""
    taken, waits = durations.tolist(), run.waits.tolist()
    done = [0.0] * (len(taken) + 1)
    for wave in run.waves:
        for i in wave.tolist():
            on_line, first, second = waits[i]
            done[i] = max(done[on_line], done[first], done[second]) + taken[i]
    return np.array(done[:-1])


@lru_cache(maxsize=64)
def in_flight(schedule: Schedule) -> tuple[float, ...]:
    """For each stage, the largest number of micro-batches whose activations it holds at once.

    From a forward's start to the end of the backward that gives the weights' gradients. A chunk counts as its share of
    the stage's layers; each direction of DualPipe has as many layers per stage as other schedules.
    """
    share = 1.0 if schedule.name == "dualpipe" else 1.0 / schedule.chunks
    return tuple(share * max(sum(alive) for alive in alive_chunks(schedule, stage)) for stage in range(schedule.stages))


def alive_chunks(schedule: Schedule, stage: int) -> list[tuple[int, ...]]:
    """For each slot of a stage, the number of micro-batches whose activations it holds of each chunk."""
    alive, found = [0] * schedule.chunks, []
    for slot in schedule.orders[stage]:
        for one in slot.all:
            alive[one.chunk] += one.kind == FORWARD
        found.append(tuple(alive))
        for one in slot.all:
            alive[one.chunk] -= one.kind in (WEIGHT, BOTH)
    return found
