"""The charts of a training step's page as plain Plotly figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.display.breakdown import part_text, peaks_of, points_of
from graphsim.display.nodes import number
from graphsim.display.palette import CRITICAL, TINTS
from graphsim.display.training import DIRECTIONS, MEMORY_PARTS, TIME_LABELS, TIME_PARTS, busy_s, kind_text
from graphsim.export.html_chart import Figure, layout_of, safe
from graphsim.export.html_figures import bar, point_text, points_trace, roofs
from graphsim.export.html_timeline import timeline
from graphsim.ops import Direction
from graphsim.ops.kinds import Kind
from graphsim.training.estimate import TrainEstimate, TrainMemory
from graphsim.training.pipelined import Pipelined
from graphsim.training.slots import BOTH, FORWARD, INPUT, WEIGHT
from graphsim.units import bytes_text, seconds_text

if TYPE_CHECKING:
    import pandas as pd

GIB = 2.0**30
_DOWNWARDS = {"autorange": "reversed", "automargin": True}
_SYMBOLS = {
    Direction.FORWARD: "circle", Direction.RECOMPUTE: "circle-open", Direction.BACKWARD: "diamond",
    Direction.UPDATE: "square",
}  # fmt: skip


def figures_of(estimate: TrainEstimate, compared: pd.DataFrame | None, scenario: int) -> dict[str, Figure]:
    """All charts by the id of their element on the page."""
    graph = estimate.graph
    found = {
        "chart-times": times(estimate, scenario),
        "chart-kinds": kinds(graph, scenario),
        "chart-memory": memory(estimate.memory, scenario),
        "chart-moments": moments(estimate.memory, scenario),
        "chart-roofline": roofline(estimate, graph, scenario),
        "chart-step": timeline(graph, "micro-batch and update", scenario),
    }
    if estimate.slots is not None:
        found |= {"chart-pipeline": pipeline(estimate.slots, scenario)}
    if compared is not None:
        found |= {
            "chart-methods-time": methods_time(compared),
            "chart-methods-memory": methods_memory(estimate, compared),
        }
    return found


def times(estimate: TrainEstimate, scenario: int) -> Figure:
    """Stacked bar of the parts of a step's time."""
    scale, unit = (1.0, "s") if number(estimate.step_s, scenario) >= 1.0 else (1e3, "ms")
    data = []
    for name, colour in TIME_PARTS.items():
        seconds = number(estimate.parts_s.get(name, 0.0), scenario)
        if seconds > 0:
            text = f"{TIME_LABELS.get(name, name)}: {seconds_text(seconds)}"
            data.append(bar(text, ["step"], [seconds * scale], colour, [text]))
    axes = {"xaxis": {"title": {"text": unit}}, "yaxis": {"visible": False}}
    return {"data": data, "layout": _flat(layout_of(barmode="stack", height=210, **axes))}


def kinds(graph: nx.DiGraph, scenario: int) -> Figure:
    """Busy time by kind of operation, one bar per direction."""
    found = busy_s(graph, scenario)
    shown = [direction for direction in DIRECTIONS if any(key[0] is direction for key in found)]
    data = []
    for kind in Kind:
        seconds = [found.get((direction, kind), 0.0) for direction in shown]
        if any(seconds):
            names = [DIRECTIONS[direction] for direction in shown]
            texts = [f"{name}, {kind_text(kind)}: {seconds_text(s)}" for name, s in zip(names, seconds, strict=True)]
            data.append(bar(kind_text(kind), names, [1e3 * s for s in seconds], TINTS[kind].line, texts))
    axes = {"xaxis": {"title": {"text": "busy ms of one micro-batch and the update"}}, "yaxis": _DOWNWARDS}
    return {"data": data, "layout": layout_of(barmode="stack", height=150 + 44 * len(shown), **axes)}


def memory(usage: TrainMemory, scenario: int) -> Figure:
    """Parts of a device's memory at its peak, with its capacity."""
    data = []
    for name, colour in MEMORY_PARTS.items():
        size = number(getattr(usage, f"{name}_bytes"), scenario)
        if size > 0:
            text = f"{part_text(name)}: {bytes_text(size)}"
            data.append(bar(text, ["device"], [size / GIB], colour, [text]))
    reserved, capacity = number(usage.reserved_bytes, scenario), number(usage.capacity_bytes, scenario)
    layout = layout_of(
        barmode="stack", height=240,
        xaxis={"title": {"text": "GiB per device"}, "range": [0, 1.05 * max(capacity, reserved) / GIB]},
        yaxis={"visible": False},
        shapes=[_line(capacity / GIB, CRITICAL), _line(reserved / GIB, "MUTED")],
    )  # fmt: skip
    for size, name, colour in ((capacity, "capacity", CRITICAL), (reserved, "reserved", "MUTED")):
        data.append(_named(f"{name}: {bytes_text(size)}", colour))
    return {"data": data, "layout": _flat(layout)}


def _line(at: float, colour: str) -> Figure:
    dashed = {"color": colour, "width": 2, "dash": "dash"}
    return {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": dashed}


def _named(name: str, colour: str, y: str = "device") -> Figure:
    """A legend entry."""
    dashed = {"color": colour, "width": 2, "dash": "dash"}
    return {"type": "scatter", "mode": "lines", "x": [None], "y": [y], "name": name, "line": dashed}


def moments(usage: TrainMemory, scenario: int) -> Figure:
    """Allocated bytes over the course of the step, with the peak marked."""
    names = [name for name, _ in usage.timeline]
    sizes = [number(size, scenario) / GIB for _, size in usage.timeline]
    steps = list(range(len(names)))
    texts = [f"<b>{safe(name)}</b><br>{bytes_text(size * GIB)}" for name, size in zip(names, sizes, strict=True)]
    line = {
        "type": "scatter", "mode": "lines+markers", "name": "allocated", "x": steps, "y": sizes, "fill": "tozeroy",
        "line": {"color": "#2563eb", "width": 2, "shape": "linear"}, "hovertext": texts, "hoverinfo": "text",
    }  # fmt: skip
    capacity = number(usage.capacity_bytes, scenario) / GIB
    fullest = max(steps, key=lambda step: sizes[step], default=0)
    notes = [_peak_note(fullest, sizes[fullest], names[fullest])] if names else []
    edge = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": capacity, "y1": capacity,
            "line": {"color": CRITICAL, "width": 1.5, "dash": "dash"}}  # fmt: skip
    layout = layout_of(
        height=380, showlegend=False, annotations=notes, shapes=[edge],
        xaxis={"tickvals": steps, "ticktext": [safe(name) for name in names], "tickangle": -30, "automargin": True},
        yaxis={"title": {"text": "GiB allocated"}, "rangemode": "tozero"},
    )  # fmt: skip
    layout["margin"] = layout["margin"] | {"t": 48}
    return {"data": [line], "layout": layout}


def _peak_note(step: int, size: float, name: str) -> Figure:
    return {
        "x": step, "y": size, "text": f"<b>{bytes_text(size * GIB)}</b> at {safe(name)}", "showarrow": True,
        "arrowhead": 2, "ax": 0, "ay": -34, "font": {"color": CRITICAL}, "arrowcolor": CRITICAL,
    }  # fmt: skip


def roofline(estimate: TrainEstimate, graph: nx.DiGraph, scenario: int) -> Figure:
    """Roofline with every operation as a point: its symbol is the direction, its area the share of the step's time."""
    points = points_of(graph, scenario)
    whole = sum(point.latency_s * point.times for point in points) or 1.0
    data: list[Figure] = []
    for direction, label in DIRECTIONS.items():
        for kind in Kind:
            members = [point for point in points if point.kind is kind and point.entry.op.direction is direction]
            if members:
                texts = [point_text(point, whole, scenario) for point in members]
                sizes = [7 + 34 * (point.latency_s * point.times / whole) ** 0.5 for point in members]
                marker = {"color": TINTS[kind].line, "symbol": _SYMBOLS[direction], "size": sizes, "opacity": 0.75}
                data.append(points_trace(f"{label}: {kind_text(kind)}", members, marker, texts))
    device = estimate.setup.deployment.device
    lines = roofs(peaks_of(graph, device, scenario), number(device.memory_bytes_per_s, scenario), data)
    layout = layout_of(
        height=500,
        xaxis={"type": "log", "dtick": 1, "title": {"text": "flops per byte of memory traffic"}},
        yaxis={"type": "log", "dtick": 1, "title": {"text": "flop/s reached", "standoff": 12},
               "exponentformat": "power", "automargin": True},
    )  # fmt: skip
    return {"data": lines + data, "layout": layout}


SLOTS = {
    FORWARD: ("forward", "#2563eb"), BOTH: ("backward", "#ea580c"), INPUT: ("dgrad", "#ea580c"),
    WEIGHT: ("wgrad", "#16a34a"),
}  # fmt: skip


def pipeline(slots: Pipelined, scenario: int) -> Figure:
    """The pipeline slots of all micro-batches, one lane per stage."""
    entries, data = slots.run.entries, []
    starts, ends = (np.asarray(times).reshape(len(entries), -1) for times in (slots.start_s, slots.finish_s))
    at = min(scenario, starts.shape[1] - 1)
    for kind, (name, colour) in SLOTS.items():
        chosen = [i for i, entry in enumerate(entries) if entry.to < 0 and entry.slot.kind == kind]
        if not chosen:
            continue
        begin, length = starts[chosen, at] * 1e3, (ends - starts)[chosen, at] * 1e3
        texts = [
            f"{name} of micro-batch {entries[i].slot.micro_batch}, {seconds_text(ms / 1e3)}"
            for i, ms in zip(chosen, length.tolist(), strict=True)
        ]
        lanes = [f"stage {entries[i].stage}" for i in chosen]
        edge = {"color": colour, "line": {"color": "#ffffff", "width": 0.6}}
        data.append(bar(name, lanes, length.tolist(), colour, texts) | {"base": begin.tolist(), "marker": edge})
    order = [f"stage {i}" for i in reversed(range(len(slots.busy_s)))]
    axes = {
        "xaxis": {"title": {"text": "the whole step, ms"}},
        "yaxis": {"categoryarray": order, "categoryorder": "array", "automargin": True, "fixedrange": True},
    }
    height = 150 + 34 * len(order)
    return {"data": data, "layout": layout_of(barmode="overlay", bargap=0.2, height=height, dragmode="pan", **axes)}


def methods_time(compared: pd.DataFrame) -> Figure:
    """Tokens per second per device, one bar per method."""
    names, values = list(compared.index), compared["tokens_per_s_per_gpu"].tolist()
    shown = [value if value == value else 0.0 for value in values]
    texts = [f"{safe(str(name))}: {value:,.0f} tokens/s" for name, value in zip(names, shown, strict=True)]
    data = [bar("tokens/s per device", names, shown, "#2563eb", texts)]
    axes = {"xaxis": {"title": {"text": "tokens/s per device"}}, "yaxis": _DOWNWARDS}
    return {"data": data, "layout": layout_of(height=110 + 40 * len(names), showlegend=False, **axes)}


def methods_memory(estimate: TrainEstimate, compared: pd.DataFrame) -> Figure:
    """Peak memory by part, one bar per method, with the capacity."""
    names = list(compared.index)
    data = []
    for part, colour in MEMORY_PARTS.items():
        sizes = [size if size == size else 0.0 for size in compared[f"{part}_bytes"].tolist()]
        if any(sizes):
            texts = [f"{safe(str(n))}, {part}: {bytes_text(s)}" for n, s in zip(names, sizes, strict=True)]
            data.append(bar(part, names, [size / GIB for size in sizes], colour, texts))
    capacity = number(estimate.memory.capacity_bytes) / GIB
    axes: dict[str, Any] = {"xaxis": {"title": {"text": "GiB per device"}}, "yaxis": _DOWNWARDS}
    layout = layout_of(barmode="stack", height=170 + 40 * len(names), shapes=[_line(capacity, CRITICAL)], **axes)
    return {"data": [*data, _named(f"capacity: {bytes_text(capacity * GIB)}", CRITICAL, names[0])], "layout": layout}


def _flat(layout: Figure) -> Figure:
    layout["margin"] = layout["margin"] | {"l": 16}
    return layout
