"""Why an estimate is what it is: its time, split into causes that add up to it exactly.

Each operation on the critical path takes its time for one of these reasons:

    compute_s, memory_s, network_s   its flops, bytes or message at the datasheet's rates, whichever takes longest
    shortfall_s                      what its kernel takes beyond that (below 0: its operands stay in the cache)
    launch_s                         the start of its kernel
    engine_s                         the engine's work on the host that the device waits for
    other_s                          what belongs to no operation: overlap, contexts that grow, what nobody modelled
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from graphsim.analysis.switches import Switch, switches_of
from graphsim.deployment.intervals import SERVER
from graphsim.display.nodes import Entry, entries, kind_of, number, require
from graphsim.errors import ConfigError, choices_text
from graphsim.graph.critical import critical_path
from graphsim.ops.base import HOST, OpType
from graphsim.result import COVERAGE, Estimate, PhaseEstimate, plain
from graphsim.units import seconds_text

if TYPE_CHECKING:
    import pandas as pd

CAUSES = ("compute_s", "memory_s", "network_s", "shortfall_s", "launch_s", "engine_s", "other_s")
"""Columns that add up to a part's time."""

QUANTITIES = ("ttft_s", "tpot_s")

AMOUNTS = ("operations", "flops", "moved_bytes", "message_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePart:
    """One kind of operation in one part of the model: how much work, and the time by cause.

    quantity: `ttft_s` or `tpot_s`; in a difference all numbers are signed
    """

    quantity: str
    part: str
    op_type: str
    operations: float = 0.0
    flops: float = 0.0
    moved_bytes: float = 0.0
    message_bytes: float = 0.0
    compute_s: float = 0.0
    memory_s: float = 0.0
    network_s: float = 0.0
    shortfall_s: float = 0.0
    launch_s: float = 0.0
    engine_s: float = 0.0
    other_s: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a part of."""
        return self.quantity, self.part, self.op_type

    @property
    def total_s(self) -> float:
        """The sum of all causes."""
        return math.fsum(getattr(self, name) for name in CAUSES)

    def plus(self, other: TimePart, sign: float = 1.0) -> TimePart:
        """Both together; `sign` -1 gives the difference."""
        sums = {name: getattr(self, name) + sign * getattr(other, name) for name in (*AMOUNTS, *CAUSES)}
        return TimePart(quantity=self.quantity, part=self.part, op_type=self.op_type, **sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The parts of an estimate, of a difference or of a measured time; `totals` are what they add up to.

    title: what is explained; findings: the most telling numbers in words; notes: what an estimate itself says
    switches: nodes that would be faster with more to do, and what takes over there; of a single estimate
    """

    title: str
    totals: Mapping[str, float]
    parts: tuple[TimePart, ...]
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    switches: tuple[Switch, ...] = ()

    def causes(self, quantity: str = "ttft_s") -> dict[str, float]:
        """Seconds by cause. Raises ConfigError for a quantity that is not explained."""
        if quantity not in self.totals:
            raise ConfigError(f"quantity '{quantity}' is not explained; {choices_text(quantity, self.totals)}")
        chosen = [part for part in self.parts if part.quantity == quantity]
        return {name: math.fsum(getattr(part, name) for part in chosen) for name in CAUSES}

    def to_frame(self) -> pd.DataFrame:
        """One row per quantity, part of the model and type of operation; the causes add up to `total_s`."""
        import pandas as pd

        return pd.DataFrame([_row(part) for part in self.parts])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        values = {
            "title": self.title,
            "totals": dict(self.totals),
            "causes": {quantity: self.causes(quantity) for quantity in self.totals},
            "parts": [_row(part) for part in self.parts],
            "findings": list(self.findings),
            "notes": list(self.notes),
            "switches": [asdict(switch) for switch in self.switches],
        }
        return plain(values)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        lines = [self.title]
        for quantity, total in self.totals.items():
            causes = {name: value for name, value in self.causes(quantity).items() if value}
            named = ", ".join(f"{name.removesuffix('_s')} {seconds_text(value)}" for name, value in causes.items())
            lines.append(f"{quantity} {seconds_text(total)}: {named}")
        return "\n".join([*lines, *self.findings, *(f"note: {note}" for note in self.notes)])


def _row(part: TimePart) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(TimePart)} | {"total_s": part.total_s}


def explain(
    estimate: Estimate,
    other: Estimate | None = None,
    *,
    measured: Mapping[str, float] | None = None,
    scenario: int = 0,
) -> Explanation:
    """Why an estimate is what it is, why `other` differs from it, or what a measured time tells about it.

    Of one estimate, findings name the nodes that fall as work grows by the next step, and the kernel that takes over.
    measured: `ttft_s`, `tpot_s` or both, in seconds; what the estimate does not explain is a part of its own
    scenario: which one, where numbers are arrays
    Raises ConfigError for anything else than estimates, both at once, or unknown or non-positive measured times.
    """
    require("explain", estimate, Estimate)
    if other is not None and measured is not None:
        raise ConfigError("explain takes a second estimate or measured times, not both")
    one = _explained(estimate, scenario)
    if other is not None:
        require("explain", other, Estimate)
        return _difference(one, _explained(other, scenario))
    if measured is not None:
        return _against(one, _times(measured))
    switches = switches_of(estimate, scenario)
    return replace(one, switches=switches, findings=(*one.findings, *map(str, switches)))


def _explained(estimate: Estimate, scenario: int) -> Explanation:
    totals = {name: number(getattr(estimate, name), scenario) for name in QUANTITIES}
    engine = _engine(estimate, scenario)
    parts = (
        *engine,
        *_parts("ttft_s", estimate.prefill, totals["ttft_s"] - math.fsum(part.total_s for part in engine), scenario),
        *_parts("tpot_s", estimate.decode, totals["tpot_s"], scenario),
    )
    whole = Explanation(title=_title(estimate), totals=totals, parts=parts)
    findings = [
        f"{name}: {_datasheet_s(whole, name) / total:.0%} of it is the datasheet's time for the work"
        for name, total in totals.items()
    ]
    findings += [text for name in totals for text in _certainty(estimate, name, scenario)]
    return Explanation(title=whole.title, totals=totals, parts=parts, findings=tuple(findings), notes=estimate.notes)


def _engine(estimate: Estimate, scenario: int) -> list[TimePart]:
    """What the engine's own work adds to the time to the first token, if its host was looked at."""
    spent = estimate.engine_time
    parts = (("REQUEST", spent.request_s), ("LAUNCH", spent.launches_s))
    return [
        TimePart(quantity="ttft_s", part="engine", op_type=name, engine_s=number(seconds, scenario))
        for name, seconds in parts
        if number(seconds, scenario)
    ]


def _certainty(estimate: Estimate, name: str, scenario: int) -> Iterable[str]:
    """Between which times it is expected, and whose errors make that as wide as it is."""
    intervals = estimate.intervals(COVERAGE)
    if name not in intervals:
        return
    low, high = (number(end, scenario) for end in intervals[name])
    widths = estimate.uncertainty.widths(name, COVERAGE, scenario)
    which, width = next(iter(widths.items()))
    least = "what the engine's server adds" if which == SERVER else f"the family '{which}'"
    yield (
        f"{name}: {seconds_text(low)} to {seconds_text(high)} in {COVERAGE:.0%} of cases; least certain is {least}, "
        f"whose errors alone spread it over {width:.0%}"
    )


def _title(estimate: Estimate) -> str:
    return f"{estimate.model} on {estimate.hardware} under {estimate.engine} ({estimate.cost_model})"


def _datasheet_s(explanation: Explanation, quantity: str) -> float:
    causes = explanation.causes(quantity)
    return math.fsum(causes[name] for name in ("compute_s", "memory_s", "network_s"))


def _parts(quantity: str, phase: PhaseEstimate, total_s: float, scenario: int) -> list[TimePart]:
    """The critical path's operations by kind, and what remains to the total."""
    path = set(critical_path(phase.graph, scenario))
    found: dict[tuple[str, str, str], TimePart] = {}
    for entry in entries(phase.graph):
        if entry.name in path and not entry.op.once:
            part = _part(quantity, entry, scenario)
            found[part.key] = found[part.key].plus(part) if part.key in found else part
    parts = sorted((part for part in found.values() if part.total_s), key=lambda part: -part.total_s)
    latency_s = number(phase.latency_s, scenario)
    overlap_s = latency_s - math.fsum(part.total_s for part in parts)
    if abs(overlap_s) > 1e-12 * latency_s:
        parts.append(TimePart(quantity=quantity, part="overlap", op_type="", other_s=overlap_s))
    rest_s = total_s - math.fsum(part.total_s for part in parts)
    growth = "contexts that grow, stages that recur" if quantity == "tpot_s" else "rest"
    if abs(rest_s) > 1e-12 * total_s:
        parts.append(TimePart(quantity=quantity, part=growth, op_type="", other_s=rest_s))
    return parts


def _part(quantity: str, entry: Entry, scenario: int) -> TimePart:
    work, times, latency_s = entry.op.work(), entry.times, number(entry.data["latency_s"], scenario)
    causes = _causes(entry, latency_s, scenario)
    return TimePart(
        quantity=quantity,
        part=kind_of(entry.op).value,
        op_type=entry.op.op_type.name,
        operations=float(times) if latency_s else 0.0,
        flops=times * number(work.flops + work.vector_flops, scenario),
        moved_bytes=times * number(work.memory_bytes, scenario),
        message_bytes=times * number(work.message_bytes, scenario),
        **{name: times * value for name, value in causes.items()},
    )


def _causes(entry: Entry, latency_s: float, scenario: int) -> dict[str, float]:
    if entry.op.stream == HOST or entry.op.op_type is OpType.LAUNCH:
        return {"engine_s": latency_s}
    cost = entry.data.get("cost")
    if cost is None:
        return {"other_s": latency_s}
    ideals = {name: number(getattr(cost, name), scenario) for name in ("compute_s", "memory_s", "network_s")}
    name = max(ideals, key=lambda key: ideals[key])
    launch_s = number(cost.launch_s, scenario)
    return {name: ideals[name], "launch_s": launch_s, "shortfall_s": latency_s - launch_s - ideals[name]}


def _difference(one: Explanation, other: Explanation) -> Explanation:
    """`other` minus `one`, part by part."""
    before, after = ({part.key: part for part in side.parts} for side in (one, other))
    parts = []
    for key in dict.fromkeys([*before, *after]):
        nothing = TimePart(quantity=key[0], part=key[1], op_type=key[2])
        parts.append(after.get(key, nothing).plus(before.get(key, nothing), -1.0))
    parts.sort(key=lambda part: (QUANTITIES.index(part.quantity), -abs(part.total_s)))
    totals = {name: other.totals[name] - one.totals[name] for name in QUANTITIES}
    findings = []
    for name in QUANTITIES:
        largest = next((part for part in parts if part.quantity == name), None)
        text = f"{name}: {seconds_text(one.totals[name])} becomes {seconds_text(other.totals[name])}"
        if largest is not None and largest.total_s:
            text += f"; most of it by {largest.part} {largest.op_type}".rstrip()
            text += f" ({seconds_text(abs(largest.total_s))} {'more' if largest.total_s > 0 else 'less'})"
        findings.append(text)
    return Explanation(
        title=f"{other.title} against {one.title}", totals=totals, parts=tuple(parts), findings=tuple(findings),
        notes=tuple(dict.fromkeys([*one.notes, *other.notes])),
    )  # fmt: skip


def _times(measured: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(measured, Mapping) or not measured:
        raise ConfigError("measured is empty; give ttft_s, tpot_s or both, in seconds")
    found = {}
    for name, value in measured.items():
        if name not in QUANTITIES:
            raise ConfigError(f"measured: '{name}' is not known; {choices_text(str(name), QUANTITIES)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigError(f"measured: {name} = {value!r} is not allowed; expected seconds above 0")
        found[name] = float(value)
    return {name: found[name] for name in QUANTITIES if name in found}


def _against(one: Explanation, measured: Mapping[str, float]) -> Explanation:
    """The measured times: the estimate's parts, and what they leave unexplained."""
    parts: list[TimePart] = []
    findings: list[str] = []
    for name, total_s in measured.items():
        own = [part for part in one.parts if part.quantity == name]
        gap_s = total_s - math.fsum(part.total_s for part in own)
        parts += [TimePart(quantity=name, part="not explained", op_type="", other_s=gap_s), *own]
        findings += _reading(one, name, total_s)
    return Explanation(
        title=f"measured against {one.title}", totals=dict(measured), parts=tuple(parts), findings=tuple(findings),
        notes=one.notes,
    )  # fmt: skip


def _reading(one: Explanation, name: str, total_s: float) -> Iterable[str]:
    """What would have to be so for the measured time to come out."""
    estimated_s, least_s = one.totals[name], _datasheet_s(one, name)
    causes = one.causes(name)
    started_s = causes["launch_s"] + causes["engine_s"]
    off = f"{estimated_s / total_s - 1.0:+.0%}"
    yield f"{name}: measured {seconds_text(total_s)}, estimated {seconds_text(estimated_s)} ({off})"
    if total_s < least_s:
        yield (
            f"{name}: the datasheet's rates alone need {seconds_text(least_s)}; less work was measured, "
            "a narrower format, more devices, or another device"
        )
        return
    estimated = least_s / max(estimated_s - started_s, 1e-30)
    needed = least_s / max(total_s - started_s, 1e-30)
    yield f"{name}: kernels are estimated at {estimated:.0%} of the datasheet; the measured time needs {needed:.0%}"
    if total_s > estimated_s:
        waiting = seconds_text(total_s - estimated_s)
        yield f"{name}: or the device waits {waiting} for the engine: scheduling, launches, other requests"
