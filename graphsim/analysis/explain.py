"""Explanation of an estimate: its time, split into causes that add up to it exactly.

The time of each operation on the critical path is split into these causes:

    compute_s, memory_s, network_s   its FLOPs, bytes or messages at datasheet rates, whichever takes longest
    shortfall_s                      the time of its kernel beyond that (negative if its operands stay in the cache)
    launch_s                         launch overhead of its kernel
    engine_s                         host work of the engine that the device waits for
    other_s                          time of no single operation: overlap, growing contexts, unmodelled effects
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphsim.analysis.changes import changes_between
from graphsim.analysis.explain_training import explained_step
from graphsim.analysis.explanation import Explanation, TimePart, datasheet_s, part_of
from graphsim.analysis.switches import switches_of
from graphsim.compile.causes import CAUSES
from graphsim.deployment.intervals import SERVER
from graphsim.display.nodes import entries, number, require
from graphsim.errors import ConfigError, choices_text
from graphsim.graph.critical import path_of
from graphsim.result import COVERAGE, Estimate, PhaseEstimate
from graphsim.training.estimate import TrainEstimate
from graphsim.training.setup import settings_of
from graphsim.units import as_number, seconds_text, short

QUANTITIES = ("ttft_s", "tpot_s")
NOISE = 1e-12
"""Fraction of a time below which a part is a rounding error."""


def explain(
    estimate: Estimate | TrainEstimate,
    other: Estimate | TrainEstimate | None = None,
    *,
    measured: Mapping[str, float] | None = None,
    scenario: int = 0,
) -> Explanation:
    """Explain an estimate, its difference from another one, or its difference from a measured time.

    estimate: the estimate
    other: a second estimate
    measured: a measured `ttft_s`, `tpot_s` or both (for a training step `step_s`), in seconds; the time that the
        estimate does not explain is a separate part
    scenario: index of the scenario, if numbers are arrays
    For a single estimate, the findings name the nodes that become faster with slightly more work, and the kernel that
    then runs.
    Raises ConfigError for anything other than estimates, for `other` together with `measured`, and for unknown or
    non-positive measured times.
    """
    require("explain", estimate, Estimate, TrainEstimate)
    if other is not None and measured is not None:
        raise ConfigError("explain takes a second estimate or measured times, not both")
    one = _explained(estimate, scenario)
    if other is not None:
        require("explain", other, type(estimate))
        changes = changes_between(_asked(estimate), _asked(other), scenario)
        alike = replace(estimate.basis, interval="") == replace(other.basis, interval="")
        two = _explained(other, scenario)
        found = _difference(one, two, changes)
        return replace(found, title=two.title) if alike else found
    if measured is not None:
        return _against(one, _times(measured, tuple(one.totals)))
    if isinstance(estimate, TrainEstimate):
        return one
    switches = switches_of(estimate, scenario)
    return replace(one, switches=switches, findings=(*one.findings, *map(str, switches)))


def _explained(estimate: Estimate | TrainEstimate, scenario: int) -> Explanation:
    if isinstance(estimate, TrainEstimate):
        return explained_step(estimate, scenario)
    totals = {name: number(getattr(estimate, name), scenario) for name in QUANTITIES}
    engine = _engine(estimate, scenario)
    parts = (
        *engine,
        *_parts("ttft_s", estimate.prefill, totals["ttft_s"] - math.fsum(part.total_s for part in engine), scenario),
        *_parts("tpot_s", estimate.decode, totals["tpot_s"], scenario),
    )
    whole = Explanation(title=str(estimate.basis), totals=totals, parts=parts)
    findings = [
        f"{name}: {datasheet_s(whole, name) / total:.0%} of it is the datasheet's time for the work"
        for name, total in totals.items()
    ]
    findings += [text for name in totals for text in _certainty(estimate, name, scenario)]
    return Explanation(title=whole.title, totals=totals, parts=parts, findings=tuple(findings), notes=estimate.notes)


def _engine(estimate: Estimate, scenario: int) -> list[TimePart]:
    """The host time that the engine adds to the time to first token, if it was measured for this engine."""
    spent = estimate.engine_time
    parts = (("REQUEST", spent.request_s), ("LAUNCH", spent.launches_s))
    return [
        TimePart(quantity="ttft_s", part="engine", op_type=name, engine_s=number(seconds, scenario))
        for name, seconds in parts
        if number(seconds, scenario)
    ]


def _certainty(estimate: Estimate, name: str, scenario: int) -> Iterable[str]:
    """The range in which the time is expected, and the component whose errors contribute most to it."""
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


def _parts(quantity: str, phase: PhaseEstimate, total_s: float, scenario: int) -> list[TimePart]:
    """The critical path's operations by kind, and the remainder to the total."""
    path = set(path_of(phase.graph, scenario))
    found: dict[tuple[str, str, str], TimePart] = {}
    for entry in entries(phase.graph):
        if entry.name in path and not entry.op.once:
            part = part_of(quantity, entry, scenario)
            found[part.key] = found[part.key].plus(part) if part.key in found else part
    parts = sorted((part for part in found.values() if part.total_s), key=lambda part: -part.total_s)
    latency_s = number(phase.latency_s, scenario)
    overlap_s = latency_s - math.fsum(part.total_s for part in parts)
    if abs(overlap_s) > NOISE * latency_s:
        parts.append(TimePart(quantity=quantity, part="overlap", op_type="", other_s=overlap_s))
    rest_s = total_s - math.fsum(part.total_s for part in parts)
    growth = "contexts that grow, stages that recur" if quantity == "tpot_s" else "rest"
    if abs(rest_s) > NOISE * total_s:
        parts.append(TimePart(quantity=quantity, part=growth, op_type="", other_s=rest_s))
    return parts


def _asked(estimate: Estimate | TrainEstimate) -> dict[str, Any]:
    """All settings of an estimate, by name."""
    settings = estimate.settings if isinstance(estimate, Estimate) else settings_of(estimate.setup)
    return {"model": estimate.model, "hardware": estimate.hardware, "cost": estimate.cost_model, **settings}


def _difference(one: Explanation, other: Explanation, changes: Mapping[str, tuple[str, str]]) -> Explanation:
    """`other` minus `one`, part by part; parts that do not differ are left out."""
    before, after = ({part.key: part for part in side.parts} for side in (one, other))
    parts = []
    for key in dict.fromkeys([*before, *after]):
        nothing = TimePart(quantity=key[0], part=key[1], op_type=key[2])
        part = after.get(key, nothing).plus(before.get(key, nothing), -1.0)
        least = NOISE * max(one.totals[part.quantity], other.totals[part.quantity])
        if any(abs(getattr(part, name)) > least for name in CAUSES):
            parts.append(part)
    names = list(one.totals)
    parts.sort(key=lambda part: (names.index(part.quantity), -abs(part.total_s)))
    totals = {name: other.totals[name] - one.totals[name] for name in names}
    findings = []
    for name in names:
        largest = next((part for part in parts if part.quantity == name), None)
        text = f"{name}: {seconds_text(one.totals[name])} becomes {seconds_text(other.totals[name])}"
        if largest is not None and largest.total_s:
            text += f"; most of it by {largest.part} {largest.op_type}".rstrip()
            text += f" ({seconds_text(abs(largest.total_s))} {'more' if largest.total_s > 0 else 'less'})"
        findings.append(text)
    return Explanation(
        title=f"{other.title} against {one.title}", changes=changes,
        totals=totals, parts=tuple(parts), findings=tuple(findings),
        notes=tuple(dict.fromkeys([*one.notes, *other.notes])),
    )  # fmt: skip


def _times(measured: Mapping[str, float], allowed: Sequence[str]) -> dict[str, float]:
    if not isinstance(measured, Mapping) or not measured:
        raise ConfigError(f"measured is empty; give {', '.join(allowed)} in seconds")
    found = {}
    for name, value in measured.items():
        if name not in allowed:
            raise ConfigError(f"measured: '{name}' is not known; {choices_text(str(name), allowed)}")
        seconds = as_number(value)
        if not isinstance(seconds, float) or not 0.0 < seconds < math.inf:
            raise ConfigError(f"measured: {name} = {short(value)} is not allowed; expected seconds above 0")
        found[name] = seconds
    return {name: found[name] for name in allowed if name in found}


def _against(one: Explanation, measured: Mapping[str, float]) -> Explanation:
    """The explanation of measured times: the estimate's parts, and the unexplained remainder."""
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
    """Sentences on the rates or overheads that would reproduce the measured time."""
    estimated_s, least_s = one.totals[name], datasheet_s(one, name)
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
