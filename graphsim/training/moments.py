"""Memory of a step, moment by moment: between steps, each section's forward, the head, each section's backward, update.

Every moment includes the allocated weights, states and gradients; saved values grow section by section in the forward
pass and shrink in the backward pass; within a turn the peak counts (`graphsim.training.alive`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import networkx as nx
import numpy as np

from graphsim.ops import Input, KeptValue, Loss, LossBackward
from graphsim.training.alive import Storages, peak_bytes
from graphsim.training.held import HeldBytes, HeldUnit
from graphsim.training.kernels import temporary_bytes
from graphsim.training.sections import Section, sections_of
from graphsim.training.setup import TrainingSetup
from graphsim.units import Num

PARTS = ("weights", "gradients", "optimizer", "adapters", "activations", "logits", "workspace", "overhead")
BETWEEN, HEAD, UPDATE = "between steps", "head", "optimizer"

TURNS_ON_DEVICE = 2
"""Layers whose saved values are on the device at the same time: one is copied while the next one computes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """Bytes by part, of PARTS, at one moment of a step."""

    name: str
    parts: Mapping[str, Num]

    @property
    def total(self) -> Num:
        """All of them."""
        return sum(self.parts.values(), start=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """The memory of one section, and its number of turns.

    kept: bytes that a turn saves for its backward pass, without logits
    again: whether a turn is recomputed in the
        backward pass
    forward_peak, backward_peak: most bytes alive within a turn, `kept` included
    gained: gradients that a turn's backward pass adds
    entry: bytes of the incoming value
    """

    name: str
    times: int
    kept: Num
    again: bool
    forward_peak: Num
    backward_peak: Num
    gained: Num
    entry: Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Persistent:
    """Bytes per device that outlive a micro-batch, data parallelism taken into account.

    gradients: of a whole step
    standing: whether they are allocated during the first micro-batch, 0 or 1
    kept: whether they are allocated between steps, 0 or 1
    whole: their additional bytes while unsharded, until the last micro-batch reduces them
    gathered: units of a sharded model that are gathered at the same time
    reducing: gradients in reduction
    update: bytes allocated only during the optimizer's step
    gradient_share: of the gradients that a backward leaves, the part that stays on the device
    again: whether a second value as large as each turn's kept ones lives through the layers' backward, 0 or 1: of FSDP1
        with a frozen base, on 2 and 4 GPUs and models of 7 B and 70 B (fms-acceleration a100_80gb.csv); for unknown
        reasons
    """

    weights: Num
    adapters: Num
    optimizer: Num
    gradients: Num
    standing: Num = 0.0
    whole: Num = 0.0
    kept: Num = 0.0
    gathered: Num = 0.0
    reducing: Num = 0.0
    update: Num = 0.0
    overhead: Num = 0.0
    gradient_share: Num = 1.0
    again: Num = 0.0

    def parts(self, **further: Num) -> dict[str, Num]:
        """Bytes at a moment, in total."""
        none: dict[str, Num] = dict.fromkeys(PARTS, 0.0)
        own = {
            "weights": self.weights, "adapters": self.adapters, "optimizer": self.optimizer, "overhead": self.overhead,
        }  # fmt: skip
        return none | own | further


def turns_of(graph: nx.DiGraph, held: HeldBytes, setup: TrainingSetup) -> list[Turn]:
    """The sections of a sharded graph in the order of the forward pass."""
    sections = sections_of(graph)
    behind = {section.of: section for section in sections if section.backward}
    units = {unit.name: unit for unit in held.units}
    return [
        _turn(section, behind.get(section.name), setup, units[section.name])
        for section in sections
        if not section.backward
    ]


def _turn(section: Section, behind: Section | None, setup: TrainingSetup, unit: HeldUnit) -> Turn:
    temporary = partial(temporary_bytes, setup.recipe)
    kept = {} if behind is None else kept_in(behind)
    again = behind is not None and any(isinstance(op, KeptValue) and op.again for _, op in behind.ops())
    whole = setup.recompute == "full" and again
    entry = next((op for _, op in section.ops() if isinstance(op, Input)), None)
    shared, experts = unit.shared, unit.experts
    return Turn(
        name=section.name,
        times=section.times,
        kept=sum((op.kept_bytes for op in kept.values()), start=0.0),
        again=again,
        forward_peak=peak_bytes(section.graph, _forward_storages(section, kept), temporary),
        backward_peak=0.0
        if behind is None
        else peak_bytes(
            behind.graph, Storages(outside={name: op.kept_bytes for name, op in kept.items()}, held=whole), temporary
        ),
        gained=shared.gradient_bytes + experts.gradient_bytes,
        entry=0.0 if entry is None else entry.elems * entry.activations.bytes,
    )


def kept_in(behind: Section) -> dict[str, KeptValue]:
    """The values that a turn's forward pass saved for its backward pass, by node name, without logits."""
    losses = {name for name, op in behind.ops() if isinstance(op, LossBackward)}
    return {
        name: op
        for name, op in behind.ops()
        if isinstance(op, KeptValue)
        and op.takes_memory
        and not op.again
        and not (set(behind.graph.successors(name)) & losses)
    }


def _forward_storages(section: Section, kept: Mapping[str, KeptValue]) -> Storages:
    """The storages of a forward turn: its results, and other storages."""
    stays: dict[str, Num] = {}
    appears: dict[str, Num] = {}
    for op in kept.values():
        node = op.of.removeprefix(f"{section.name}.")
        found = appears if op.what else stays
        found[node] = found.get(node, 0.0) + op.kept_bytes
    return Storages(stays=stays, appears=appears)


def logits_of(graph: nx.DiGraph, kind: type[Loss] | type[LossBackward] = Loss) -> Num:
    """Logits of a device, or those with a gradient; 0 if it has no head, or no gradient is needed."""
    for _, op in graph.nodes(data="op"):
        if isinstance(op, kind):
            return op.rows * op.vocab
    return 0.0


def alive_turns(setup: TrainingSetup, times: int, again: bool) -> int:
    """Turns whose saved values are on the device at once; only those of recomputed layers are offloaded."""
    return min(times, TURNS_ON_DEVICE) if again and "activations" in setup.offload else times


def moments_of(
    turns: list[Turn],
    persistent: Persistent,
    setup: TrainingSetup,
    logits: Num,
    in_flight: Num = 1.0,
    learned: Num | None = None,
) -> list[Moment]:
    """The moments of a step in their order.

    logits: of one micro-batch on the device
    learned: those with a gradient, None for all
    in_flight: micro-batches whose kept values a pipeline stage holds at most
    """
    loss, learned = setup.recipe.loss, logits if learned is None else learned
    standing = persistent.gradients * persistent.standing + persistent.whole
    alive = {turn.name: alive_turns(setup, turn.times, turn.again) for turn in turns}
    one: Num = sum((alive[turn.name] * turn.kept for turn in turns), start=0.0)
    kept: Num = (in_flight - 1.0) * one
    running = {"workspace": persistent.gathered}
    moments = [Moment(name=BETWEEN, parts=persistent.parts(gradients=persistent.gradients * persistent.kept))]
    for turn in turns:
        taken = kept + (alive[turn.name] - 1.0) * turn.kept + turn.forward_peak
        parts = persistent.parts(gradients=standing, activations=taken, **running)
        moments.append(Moment(name=f"forward of {turn.name}", parts=parts))
        kept = kept + alive[turn.name] * turn.kept
    chunks = np.maximum(loss.chunks, 1.0)
    whole = np.maximum(loss.forward_bytes * logits, loss.peak_bytes * learned)
    at_head = {"logits": whole / chunks, "activations": kept + turns[-1].entry}
    moments.append(Moment(name=HEAD, parts=persistent.parts(gradients=standing, **at_head, **running)))
    done: Num = standing
    left = persistent.gradient_share * (1.0 - persistent.standing)
    for turn in reversed(turns):
        times, there, gained = turn.times, alive[turn.name], turn.gained * left
        kept = kept - there * turn.kept
        others = np.maximum((there - 1.0) * turn.kept + gained, times * gained)
        parts = persistent.parts(
            gradients=done + times * gained, logits=loss.after_bytes * learned / chunks,
            activations=kept + turn.backward_peak + others - times * gained + persistent.again * there * turn.kept,
            workspace=persistent.gathered + persistent.reducing,
        )  # fmt: skip
        moments.append(Moment(name=f"backward of {turn.name}", parts=parts))
        done = done + times * gained
    update = persistent.parts(gradients=persistent.gradients, workspace=persistent.update)
    moments.append(Moment(name=UPDATE, parts=update))
    return moments


def fullest(moments: list[Moment]) -> tuple[dict[str, Num], Num]:
    """The parts at the moment with the largest total, per scenario, and the number of that moment."""
    best, most = dict(moments[0].parts), moments[0].total
    number: Num = 0.0
    for place, moment in enumerate(moments[1:], start=1):
        total = moment.total
        fuller = np.greater(total, most)
        best = {name: np.where(fuller, moment.parts[name], value)[()] for name, value in best.items()}
        number = np.where(fuller, float(place), number)[()]
        most = np.maximum(total, most)
    return best, number
