"""The charts of the report as plain Plotly figures: data and layout, without colours of the page's theme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphsim.display.breakdown import (
    LEAST_INTENSITY,
    Point,
    part_text,
    peaks_of,
    points_of,
    seconds_by_kind,
    seconds_by_type,
)
from graphsim.display.nodes import dims_text, number
from graphsim.display.palette import MEMORY_COLOURS, TINTS
from graphsim.export.html_chart import Figure, layout_of, safe
from graphsim.export.html_timeline import timeline
from graphsim.ops.kinds import Kind
from graphsim.result import Estimate
from graphsim.units import bytes_text, scaled, seconds_text

if TYPE_CHECKING:
    import pandas as pd

_DOWNWARDS = {"autorange": "reversed", "automargin": True}


def figures_of(estimate: Estimate, compared: pd.DataFrame | None, scenario: int) -> dict[str, Figure]:
    """All charts by the id of their element on the page."""
    found = {
        "chart-kinds": kinds(estimate, scenario),
        "chart-types": types(estimate, scenario),
        "chart-roofline": roofline(estimate, scenario),
        "chart-prefill": timeline(estimate.prefill.graph, "prefill step", scenario),
        "chart-decode": timeline(estimate.decode.graph, "decode step", scenario),
        "chart-memory": memory(estimate, scenario),
    }
    return found if compared is None else {"chart-compare": comparison(compared)} | found


def comparison(compared: pd.DataFrame) -> Figure:
    """Stacked time to the first token and generation time, one bar per strategy."""
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
    return {"data": data, "layout": layout_of(barmode="stack", height=230, **axes)}


def kinds(estimate: Estimate, scenario: int) -> Figure:
    """Shares of busy time by kind of operation, one bar for the prompt step and one for the decode step."""
    phases = [("prefill", estimate.prefill), ("decode", estimate.decode)]
    sums = {label: seconds_by_kind(phase.graph, scenario) for label, phase in phases}
    data = []
    for kind in Kind:
        shares = [100 * found.get(kind, 0.0) / (sum(found.values()) or 1.0) for found in sums.values()]
        if any(shares):
            texts = [f"{kind.value}: {seconds_text(found.get(kind, 0.0))} per step" for found in sums.values()]
            data.append(bar(kind.value, list(sums), shares, TINTS[kind].line, texts))
    axes = {"xaxis": {"title": {"text": "% of busy time"}, "range": [0, 100]}, "yaxis": _DOWNWARDS}
    return {"data": data, "layout": layout_of(barmode="stack", height=260, **axes)}


def bar(name: str, y: list[str], x: list[float], colour: str, texts: list[str]) -> Figure:
    """Horizontal bars of one colour with hover texts."""
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
        data.append(bar(label, list(found), [100 * v / total for v in found.values()], colour, texts))
    axes = {
        "xaxis": {"title": {"text": "% of busy time"}},
        "yaxis": {"autorange": "reversed", "categoryarray": list(order), "categoryorder": "array", "automargin": True},
    }
    return {"data": data, "layout": layout_of(barmode="group", height=110 + 26 * len(order), **axes)}


def roofline(estimate: Estimate, scenario: int) -> Figure:
    """Roofline of the device with every operation as a point; its area is the share of the step's time."""
    data: list[Figure] = []
    for label, phase, symbol in (("prefill", estimate.prefill, "circle"), ("decode", estimate.decode, "diamond")):
        points = points_of(phase.graph, scenario)
        whole = sum(point.latency_s * point.times for point in points) or 1.0
        for kind in Kind:
            members = [point for point in points if point.kind is kind]
            if members:
                texts = [point_text(point, whole, scenario) for point in members]
                sizes = [7 + 34 * (point.latency_s * point.times / whole) ** 0.5 for point in members]
                marker = {"color": TINTS[kind].line, "symbol": symbol, "size": sizes, "opacity": 0.75}
                data.append(points_trace(f"{label}: {kind.value}", members, marker, texts))
    layout = layout_of(
        height=480,
        xaxis={"type": "log", "dtick": 1, "title": {"text": "flops per byte of memory traffic"}},
        yaxis={
            "type": "log",
            "dtick": 1,
            "title": {"text": "flop/s reached", "standoff": 12},
            "exponentformat": "power",
            "automargin": True,
        },
    )
    return {"data": _roofs(estimate, data, scenario) + data, "layout": layout}


def points_trace(name: str, members: list[Point], marker: Figure, texts: list[str]) -> Figure:
    """Operations of a roofline that share a legend entry."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [point.intensity for point in members],
        "y": [point.flops_per_s for point in members],
        "marker": marker,
        "hovertext": texts,
        "hoverinfo": "text",
    }


def point_text(point: Point, whole: float, scenario: int) -> str:
    """Hover text of an operation of a roofline.

    whole: seconds of the step
    """
    share = 100 * point.latency_s * point.times / whole
    reached = (
        f"{point.intensity:.3g} flops per byte, {scaled(point.flops_per_s, 'flop/s')}"
        if point.arithmetic
        else f"no arithmetic: {scaled(point.flops_per_s / LEAST_INTENSITY, 'B/s')}, drawn at the left edge"
    )
    return (
        f"<b>{safe(point.entry.name)}</b><br>{safe(dims_text(point.entry.op, scenario))}<br>"
        f"{seconds_text(point.latency_s)} × {point.times}, {share:.1f}% of the step, bound by {point.bound}<br>"
        f"{reached}"
    )


def _roofs(estimate: Estimate, points: list[Figure], scenario: int) -> list[Figure]:
    if estimate.inference is None:
        return []
    hardware = estimate.inference.hardware
    peaks = peaks_of(estimate.prefill.graph, hardware, scenario)
    return roofs(peaks, number(hardware.memory_bytes_per_s, scenario), points)


def roofs(peaks: Mapping[str, float], memory: float, points: list[Figure]) -> list[Figure]:
    """Roofs above some points; that of the highest peak includes the slope of the memory bandwidth."""
    widest = max((x for trace in points for x in trace["x"]), default=1.0)
    found = []
    for i, (name, peak) in enumerate(peaks.items()):
        ridge = peak / memory
        line = {"color": "INK", "width": 2} if i == 0 else {"color": "MUTED", "width": 1, "dash": "dot"}
        xs = [LEAST_INTENSITY if i == 0 else ridge, ridge, max(widest, ridge) * 3]
        found.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{name}: {scaled(peak, 'flop/s')}" + (f", memory {scaled(memory, 'B/s')}" if i == 0 else ""),
                "x": xs,
                "y": [min(peak, x * memory) for x in xs],
                "line": line,
                "hovertext": f"{name}: dense peak {scaled(peak, 'flop/s')}",
                "hoverinfo": "text",
            }
        )
    return found


def memory(estimate: Estimate, scenario: int) -> Figure:
    """Parts of a device's memory, with its capacity."""
    usage = estimate.memory
    data = []
    for name, colour in MEMORY_COLOURS.items():
        size = number(getattr(usage, f"{name}_bytes"), scenario)
        if size <= 0:
            continue
        text = f"{part_text(name)}: {bytes_text(size)}"
        data.append(bar(text, ["device"], [size / 2**30], colour, [text]))
    capacity = number(usage.capacity_bytes, scenario) / 2**30
    used = number(usage.total_bytes, scenario) / 2**30
    dashed = {"color": "#dc2626", "width": 2, "dash": "dash"}
    edge = {"type": "line", "x0": capacity, "x1": capacity, "y0": 0, "y1": 1, "yref": "paper", "line": dashed}
    name = f"capacity: {bytes_text(capacity * 2**30)}"
    data.append({"type": "scatter", "mode": "lines", "x": [None], "y": ["device"], "name": name, "line": dashed})
    layout = layout_of(
        barmode="stack",
        height=210,
        xaxis={"title": {"text": "GiB per device"}, "range": [0, 1.05 * max(capacity, used)]},
        yaxis={"visible": False},
        shapes=[edge],
    )
    layout["margin"] = layout["margin"] | {"l": 16}
    return {"data": data, "layout": layout}
