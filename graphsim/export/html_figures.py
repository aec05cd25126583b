"""The charts of the report as plain Plotly figures: data and layout, no colours of the page's theme."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphsim.export.breakdown import LEAST_INTENSITY, Point, peaks_of, points_of, seconds_by_kind, seconds_by_type
from graphsim.export.dot_labels import clean
from graphsim.export.nodes import Kind, dims_text, kind_of, number
from graphsim.export.palette import TINTS
from graphsim.export.spread import Turn, runs_of
from graphsim.result import Estimate, PhaseEstimate
from graphsim.units import bytes_text, scaled, seconds_text

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]
MOST_BARS = 4000
"""Runs that a timeline shows; of longer steps, only the first turn of each repeat."""

_DOWNWARDS = {"autorange": "reversed", "automargin": True}
PALE = 0.35
"""Opacity of runs off the critical path."""

TURNS_IN_VIEW = 2
"""Turns of the first repeat that a timeline shows before anyone zooms out."""

_MEMORY = {
    "weights": "#2563eb",
    "kv_cache": "#059669",
    "activations": "#94a3b8",
    "adapters": "#ea580c",
    "overhead": "#78716c",
}


def figures_of(estimate: Estimate, compared: pd.DataFrame | None, scenario: int) -> dict[str, Figure]:
    """All charts by the id of their place on the page."""
    found = {
        "chart-kinds": kinds(estimate, scenario),
        "chart-types": types(estimate, scenario),
        "chart-roofline": roofline(estimate, scenario),
        "chart-prefill": timeline(estimate.prefill, scenario),
        "chart-decode": timeline(estimate.decode, scenario),
        "chart-memory": memory(estimate, scenario),
    }
    return found if compared is None else {"chart-compare": comparison(compared)} | found


def _layout(**more: Any) -> Figure:
    base: Figure = {
        "margin": {"l": 64, "r": 16, "t": 8, "b": 44},
        "height": 320,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "traceorder": "normal"},
        "hovermode": "closest",
    }
    return base | more


def safe(text: str) -> str:
    """A text that Plotly shows as it is."""
    return html.escape(clean(text), quote=False)


def comparison(compared: pd.DataFrame) -> Figure:
    """Time to the first token and time of generation, one bar per strategy."""
    names = list(compared.index)
    scale, unit = (1.0, "s") if number(compared.latency_s.max()) >= 1.0 else (1e3, "ms")
    parts = (
        ("time to first token", compared.ttft_s, "#2563eb"),
        ("generation", compared.latency_s - compared.ttft_s, "#93c5fd"),
    )
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": names,
            "x": [number(v) * scale for v in values],
            "marker": {"color": colour},
            "hovertext": [f"{name}: {seconds_text(number(v))}" for v in values],
            "hoverinfo": "text",
        }
        for name, values, colour in parts
    ]
    axes = {"xaxis": {"title": {"text": f"latency of the batch, {unit}"}}, "yaxis": _DOWNWARDS}
    return {"data": data, "layout": _layout(barmode="stack", height=230, **axes)}


def kinds(estimate: Estimate, scenario: int) -> Figure:
    """Shares of the step's busy time by part of the layer, prompt and decode step."""
    phases = [("prefill", estimate.prefill), ("decode", estimate.decode)]
    sums = {label: seconds_by_kind(phase.graph, scenario) for label, phase in phases}
    data = []
    for kind in Kind:
        shares = [100 * found.get(kind, 0.0) / (sum(found.values()) or 1.0) for found in sums.values()]
        if any(shares):
            texts = [f"{kind.value}: {seconds_text(found.get(kind, 0.0))} per step" for found in sums.values()]
            data.append(_bar(kind.value, list(sums), shares, TINTS[kind].line, texts))
    axes = {"xaxis": {"title": {"text": "% of busy time"}, "range": [0, 100]}, "yaxis": _DOWNWARDS}
    return {"data": data, "layout": _layout(barmode="stack", height=260, **axes)}


def _bar(name: str, y: list[str], x: list[float], colour: str, texts: list[str]) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": y,
        "x": x,
        "marker": {"color": colour},
        "hovertext": texts,
        "hoverinfo": "text",
    }


def types(estimate: Estimate, scenario: int) -> Figure:
    """Busy time of a step per operation type."""
    data = []
    phases = (("prefill", estimate.prefill, "#2563eb"), ("decode", estimate.decode, "#ea580c"))
    order: dict[str, None] = {}
    for label, phase, colour in phases:
        found = seconds_by_type(phase.graph, scenario)
        order |= dict.fromkeys(found)
        total = sum(found.values()) or 1.0
        texts = [f"{label}, {name}: {seconds_text(v)} per step" for name, v in found.items()]
        data.append(_bar(label, list(found), [100 * v / total for v in found.values()], colour, texts))
    axes = {
        "xaxis": {"title": {"text": "% of busy time"}},
        "yaxis": {"autorange": "reversed", "categoryarray": list(order), "categoryorder": "array", "automargin": True},
    }
    return {"data": data, "layout": _layout(barmode="group", height=110 + 26 * len(order), **axes)}


def roofline(estimate: Estimate, scenario: int) -> Figure:
    """Every operation as a point under the device's roof, as large as its share of the step."""
    data: list[Figure] = []
    for label, phase, symbol in (("prefill", estimate.prefill, "circle"), ("decode", estimate.decode, "diamond")):
        points = points_of(phase.graph, scenario)
        whole = sum(point.latency_s * point.times for point in points) or 1.0
        for kind in Kind:
            members = [point for point in points if point.kind is kind]
            if members:
                data.append(_points(f"{label}: {kind.value}", members, whole, symbol, TINTS[kind].line))
    layout = _layout(
        height=480,
        xaxis={"type": "log", "dtick": 1, "title": {"text": "flops per byte of memory traffic"}},
        yaxis={"type": "log", "dtick": 1, "title": {"text": "flop/s reached"}, "exponentformat": "power"},
    )
    return {"data": _roofs(estimate, data, scenario) + data, "layout": layout}


def _points(name: str, members: list[Point], whole: float, symbol: str, colour: str) -> Figure:
    sizes = [7 + 34 * (p.latency_s * p.times / whole) ** 0.5 for p in members]
    texts = [
        f"<b>{safe(p.entry.name)}</b><br>{safe(dims_text(p.entry.op))}<br>{seconds_text(p.latency_s)} × {p.times}, "
        f"{100 * p.latency_s * p.times / whole:.1f} % of the step, bound by {p.bound}<br>"
        + (
            f"{p.intensity:.3g} flops per byte, {scaled(p.flops_per_s, 'flop/s')}"
            if p.arithmetic
            else f"no arithmetic: {scaled(p.flops_per_s / LEAST_INTENSITY, 'B/s')}, drawn at the left edge"
        )
        for p in members
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [p.intensity for p in members],
        "y": [p.flops_per_s for p in members],
        "marker": {"color": colour, "symbol": symbol, "size": sizes, "opacity": 0.75},
        "hovertext": texts,
        "hoverinfo": "text",
    }


def _roofs(estimate: Estimate, points: list[Figure], scenario: int) -> list[Figure]:
    if estimate.run is None:
        return []
    hardware = estimate.run.hardware
    memory = number(hardware.memory_bytes_per_s, scenario)
    widest = max((x for trace in points for x in trace["x"]), default=1.0)
    roofs = []
    for i, (name, peak) in enumerate(peaks_of(estimate.prefill.graph, hardware, scenario).items()):
        ridge = peak / memory
        line = {"color": "INK", "width": 2} if i == 0 else {"color": "MUTED", "width": 1, "dash": "dot"}
        xs = [LEAST_INTENSITY if i == 0 else ridge, ridge, max(widest, ridge) * 3]
        roofs.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{name}: {scaled(peak, 'flop/s')}, memory {scaled(memory, 'B/s')}" if i == 0 else name,
                "x": xs,
                "y": [min(peak, x * memory) for x in xs],
                "line": line,
                "hovertext": f"{name}: dense peak {scaled(peak, 'flop/s')}",
                "hoverinfo": "text",
            }
        )
    return roofs


def timeline(phase: PhaseEstimate, scenario: int) -> Figure:
    """The step as it runs: one lane per stream, one bar per run, pale off the critical path; first turns in view.

    Of very long steps, only the first turn of each repeat is shown run by run.
    """
    runs = [turn for turn in runs_of(phase.graph, scenario) if turn.latency_s > 0]
    many = len(runs) > MOST_BARS
    turns = [turn for turn in runs if all(i == 0 for _, i in turn.turns)] if many else runs
    data = [
        _lane(kind.value, TINTS[kind].line, [_bar_of(turn) for turn in members])
        for kind in Kind
        if (members := [turn for turn in turns if kind_of(turn.op) is kind])
    ]
    if many:
        data.append(_lane("further turns", "LINE", _further(runs)))
    streams = list(dict.fromkeys(turn.op.stream for turn in runs))
    axes = {
        "xaxis": {"title": {"text": f"{phase.name} step, ms"}} | _view(turns),
        "yaxis": {"categoryarray": streams[::-1], "categoryorder": "array", "automargin": True, "fixedrange": True},
    }
    height = 170 + 46 * len(streams)
    return {"data": data, "layout": _layout(barmode="overlay", bargap=0.25, height=height, dragmode="pan", **axes)}


@dataclass(frozen=True, slots=True)
class _Span:
    """A bar of a timeline."""

    stream: str
    start_s: float
    length_s: float
    text: str
    critical: bool


def _bar_of(turn: Turn) -> _Span:
    return _Span(turn.op.stream, turn.start_s, turn.latency_s, _run_text(turn), turn.critical)


def _lane(name: str, colour: str, bars: list[_Span]) -> Figure:
    opacity = [1.0 if bar.critical else PALE for bar in bars]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [bar.stream for bar in bars],
        "base": [bar.start_s * 1e3 for bar in bars],
        "x": [bar.length_s * 1e3 for bar in bars],
        "marker": {"color": colour, "line": {"width": 0}, "opacity": 1.0 if all(b.critical for b in bars) else opacity},
        "hovertext": [bar.text for bar in bars],
        "hoverinfo": "text",
    }


def _view(turns: list[Turn]) -> Figure:
    """The range in which the first turns of the first repeat lie."""
    first = next((turn.turns[0][0] for turn in turns if turn.turns), None)
    shown = [t.finish_s for t in turns if t.turns and t.turns[0][0] == first and t.turns[0][1] < TURNS_IN_VIEW]
    return {"range": [0.0, max(shown) * 1e3]} if shown else {}


def _further(runs: list[Turn]) -> list[_Span]:
    """One bar per repeat and stream for all turns but the first."""
    found: dict[tuple[str, str], list[Turn]] = {}
    for run in runs:
        repeat = next((name for name, i in run.turns if i > 0), None)
        if repeat is not None:
            found.setdefault((repeat, run.op.stream), []).append(run)
    bars = []
    for (repeat, stream), members in found.items():
        start, end = min(run.start_s for run in members), max(run.finish_s for run in members)
        busy = seconds_text(sum(run.latency_s for run in members))
        text = f"<b>{safe(repeat)}</b><br>further turns, busy for {busy}"
        bars.append(_Span(stream, start, end - start, text, critical=True))
    return bars


def _run_text(turn: Turn) -> str:
    mark = ", on the critical path" if turn.critical else ""
    return (
        f"<b>{safe(turn.name)}</b><br>{safe(dims_text(turn.op))}<br>"
        f"{seconds_text(turn.latency_s)} from {seconds_text(turn.start_s)}{mark}"
    )


def memory(estimate: Estimate, scenario: int) -> Figure:
    """What lies in a device's memory, against its capacity."""
    usage = estimate.memory
    data = []
    for name, colour in _MEMORY.items():
        size = number(getattr(usage, f"{name}_bytes"), scenario)
        if size <= 0:
            continue
        label = name.replace("_", " ").replace("kv", "KV")
        text = f"{label}: {bytes_text(size)}"
        data.append(_bar(text, ["device"], [size / 2**30], colour, [text]))
    capacity = number(usage.capacity_bytes, scenario) / 2**30
    used = number(usage.total_bytes, scenario) / 2**30
    line = {"type": "line", "x0": capacity, "x1": capacity, "y0": 0, "y1": 1, "yref": "paper"}
    layout = _layout(
        barmode="stack",
        height=210,
        xaxis={"title": {"text": "GiB per device"}, "range": [0, 1.05 * max(capacity, used)]},
        yaxis={"visible": False},
        shapes=[line | {"line": {"color": "#dc2626", "width": 2, "dash": "dash"}}],
        annotations=[
            {"x": capacity, "y": 1, "yref": "paper", "xanchor": "right", "text": "capacity ", "showarrow": False}
        ],
    )
    layout["margin"] = layout["margin"] | {"l": 16}
    return {"data": data, "layout": layout}
