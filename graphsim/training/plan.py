"""Time, money and energy of a whole training run: steps, evaluations, checkpoints, merges, and failures in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.display.nodes import number
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import load_hardware
from graphsim.result import plain
from graphsim.training.course import NAMES, Course
from graphsim.training.estimate import TrainEstimate
from graphsim.training.merges import Merge
from graphsim.training.power import watts_of
from graphsim.training.run_parts import HOUR_S, PlanPart, checkpoint_bytes, mean_watts, merge_in, parts_of, times_in
from graphsim.training.train import train
from graphsim.units import Num, as_number, bytes_text, count_text, joules_text, seconds_text, short

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A training run from start to end. Numbers are arrays where inputs were.

    estimate: the step that most of the run consists of
    steps: total number of optimizer steps, warm start included
    tokens: tokens read by all steps
    parts: the parts of the run's time, which add up to `total_s`
    checkpoint_bytes: size of one checkpoint
    devices: number of devices
    price_per_hour: of one device, NaN if not given
    watts: mean power of one device, NaN if it is not known
    merge: one merge of ReLoRA, with the graphs of its LORA_MERGE nodes; None without any
    notes: caveats
    """

    estimate: TrainEstimate
    steps: Num
    tokens: Num
    parts: tuple[PlanPart, ...]
    checkpoint_bytes: Num
    devices: Num
    price_per_hour: Num
    watts: Num
    merge: Merge | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Plan: {', '.join(f'{label} {text}' for label, text in self.lines())}>"

    @property
    def total_s(self) -> Num:
        """Seconds from the first step to the last byte written."""
        total: Num = sum((part.total_s for part in self.parts), start=0.0)
        return total

    @property
    def hours(self) -> Num:
        """Hours from the first step to the last byte written."""
        return self.total_s / HOUR_S

    @property
    def device_hours(self) -> Num:
        """Hours summed over all devices."""
        return self.hours * self.devices

    @property
    def money(self) -> Num:
        """Cost in the currency of the price; NaN without a price."""
        return self.device_hours * self.price_per_hour

    @property
    def energy_j(self) -> Num:
        """Joules of all devices, without their hosts; NaN if their power is not known."""
        return self.watts * self.device_hours * HOUR_S

    def to_frame(self, scenario: int = 0) -> pd.DataFrame:
        """One row per part: count, each_s, total_s, its share of the time and, with a price, money."""
        from graphsim.display.table import Table

        whole = number(self.total_s, scenario)
        rows = []
        for part in self.parts:
            total_s = number(part.total_s, scenario)
            share = total_s / whole if whole else 0.0
            row = {"part": part.name, "count": number(part.count, scenario), "each_s": number(part.each_s, scenario)}
            rows.append(row | {"total_s": total_s, "share": share, "money": number(self.money, scenario) * share})
        frame = Table(rows)
        return frame if np.isfinite(number(self.price_per_hour, scenario)) else frame.drop(columns="money")

    def to_dict(self) -> dict[str, Any]:
        """The whole plan as plain JSON values."""
        names = ("steps", "tokens", "total_s", "hours", "devices", "device_hours", "price_per_hour", "money", "watts")
        values: dict[str, Any] = {name: getattr(self, name) for name in (*names, "energy_j", "checkpoint_bytes")}
        parts = {
            part.name: {"count": part.count, "each_s": part.each_s, "total_s": part.total_s} for part in self.parts
        }
        return plain(values | {"parts": parts, "notes": list(self.notes)})  # type: ignore[no-any-return]

    def lines(self, scenario: int = 0) -> list[tuple[str, str]]:
        """The headline figures as texts: label and value."""
        steps, tokens = number(self.steps, scenario), number(self.tokens, scenario)
        rows = [("steps", f"{steps:,.0f} of {tokens / steps:,.0f} tokens"), ("tokens", count_text(tokens))]
        rows += [("time", time_text(number(self.total_s, scenario)))]
        rows += [("device hours", f"{number(self.device_hours, scenario):,.4g}")]
        money, joules = number(self.money, scenario), number(self.energy_j, scenario)
        rows += [("money", f"{money:,.4g} at {number(self.price_per_hour, scenario):,.6g} per hour and device")] * (
            money == money
        )
        rows += [("energy", f"{joules / 3.6e6:,.4g} kWh ({joules_text(joules)})")] * (joules == joules)
        return [*rows, ("checkpoint", bytes_text(number(self.checkpoint_bytes, scenario)))]

    def __str__(self) -> str:
        return "\n".join(f"{label}: {text}" for label, text in self.lines())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from graphsim.display.notebook import frame_html, framed, table

        return framed("training run", table(["", ""], self.lines()) + frame_html(self.to_frame()))


def fine_tune_plan(
    model: ModelRef | Deployment | TrainEstimate,
    hardware: HardwareRef | None = None,
    *,
    price_per_hour: Mapping[str, float] | Num | None = None,
    **described: Any,
) -> Plan:
    """Time, cost and energy of a training run, part by part.

    model: with `hardware` and any further argument of `train`; or the estimate of a step, which replaces all of these
    price_per_hour: of one device, in any currency: one number, or a mapping of device names to prices
    described: arguments of `train`, and of the run (`graphsim.training.course.Course`): its length as `tokens`, as
        `epochs` with `dataset_tokens` or `dataset_samples`, or as `steps`; `evaluate_every` and `evaluation_tokens`;
        `checkpoint_every` and `disk_bytes_per_s`; `failure_device_hours` and `restart_s`; `relora_every`,
        `warm_start_steps`, `rewarm_steps` and `pruned`
    Evaluations run the forward pass. Devices wait while a checkpoint is written, and still draw power.
    Raises ConfigError naming the argument, what was found and what is allowed, InfeasibleError for a deployment that
    cannot be run.
    """
    asked = {name: described.pop(name) for name in list(described) if name in NAMES}
    if isinstance(model, TrainEstimate):
        given = [name for name, value in (("hardware", hardware), *described.items()) if value is not None]
        if given:
            raise ConfigError(
                f"{', '.join(given)} given together with an estimate, which says it already; give it to `train`"
            )
        return plan_of(model, course_of(model, asked), price_per_hour)
    estimate = train(model, hardware, **described)
    return plan_of(estimate, course_of(estimate, asked), price_per_hour)


def course_of(estimate: TrainEstimate, asked: Mapping[str, Any]) -> Course:
    """The run described by the arguments, with the method's defaults (ReLoRA's cycles).

    Raises ConfigError as `Course` does.
    """
    return Course(**{**estimate.setup.method.course, **asked})


def plan_of(estimate: TrainEstimate, course: Course, price_per_hour: Mapping[str, float] | Num | None = None) -> Plan:
    """The run that a course describes, of steps as estimated. Raises as `fine_tune_plan` does."""
    setup = estimate.setup
    devices = setup.deployment.parallelism.devices
    price = _price(price_per_hour, setup.deployment.device.name)
    tokens_per_step = np.round(estimate.tokens_per_s * estimate.step_s)[()]
    steps = course.steps_of(tokens_per_step, tokens_per_step / setup.seq_len)
    merge = merge_in(estimate, course)
    parts = parts_of(estimate, course, steps, merge)
    watts, power = watts_of(estimate)
    return Plan(
        estimate=estimate, steps=steps, tokens=steps * tokens_per_step, parts=tuple(parts),
        checkpoint_bytes=checkpoint_bytes(estimate), devices=devices, price_per_hour=price,
        watts=mean_watts(parts, watts, power), merge=merge,
        notes=(*_notes(estimate, course, steps), *estimate.notes),
    )  # fmt: skip


def _price(price_per_hour: Mapping[str, float] | Num | None, device: str) -> Num:
    if price_per_hour is None:
        return float("nan")
    value: Any = price_per_hour
    if isinstance(price_per_hour, Mapping):
        named = {load_hardware(str(name)).name: price for name, price in price_per_hour.items()}
        if device not in named:
            raise ConfigError(f"price_per_hour has no price for '{device}'; {choices_text(device, named)}")
        value = named[device]
    found = as_number(value)
    if found is None or not np.all(np.isfinite(found) & np.greater(found, 0.0)):
        raise ConfigError(f"price_per_hour = {short(value)} is not allowed; expected a number above 0")
    return found


def _notes(estimate: TrainEstimate, course: Course, steps: Num) -> list[str]:
    notes = []
    if not np.all(estimate.memory.fits):
        notes.append("the step does not fit in the memory of a device, so the run could not be made as asked")
    if np.any(np.greater(course.relora_every, 0)):
        cycles = times_in(steps - np.minimum(course.warm_start_steps, steps), course.relora_every)
        low = float(np.max(cycles * course.rewarm_steps / np.maximum(steps, 1.0)))
        if low > 0:
            notes.append(f"{low:.1%} of the steps run at a reduced learning rate behind a merge (rewarm_steps)")
    return notes


def time_text(seconds: float) -> str:
    """A run's length as text: `3.25 h`, from two days on `4.1 days`."""
    if seconds < HOUR_S:
        return seconds_text(seconds) if seconds < 600 else f"{seconds / 60:.3g} min"
    return f"{seconds / HOUR_S:.4g} h" if seconds < 48 * HOUR_S else f"{seconds / 86400:.4g} days"
