"""The charts of a served run's page as plain Plotly figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.display.axes import LINES
from graphsim.display.palette import CRITICAL
from graphsim.export.html_chart import Figure, layout_of, safe
from graphsim.export.serving_series import Series, log_ticks, series_of
from graphsim.serving.figures import Floats
from graphsim.serving.goodput import Limits
from graphsim.serving.service_tables import BASE_NAME
from graphsim.units import amount_text, seconds_text

if TYPE_CHECKING:
    import pandas as pd

    from graphsim.serving.served_run import ServedRun

BLUE, ORANGE, GREEN, VIOLET = LINES[:4]
PANEL, GAP = 112, 34
"""Height of a panel over time and of the space for its title, in pixels."""

WORLDS_APART = 30.0
MOST_WORST = 15
MOST_CLASSES = 6


def figures_of(service: ServedRun, limits: Sequence[Limits]) -> dict[str, Figure]:
    """All charts by the id of their element on the page."""
    found = {"chart-clock": along_the_clock(service, limits)}
    for name, label in (("ttft_s", "time to first token"), ("tpot_s", "time per token"), ("e2e_s", "end to end")):
        found[f"chart-{name}"] = distribution(service, name, label, limits)
    if service.adapter_names:
        frame = worst_first(service.adapters)
        found |= {"chart-popular": popularity(frame, limits), "chart-worst": worst(frame)}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A chart over time.

    title: markup
    traces: Plotly traces
    limit: height of a dashed line, None for none
    wide: whether the axis is logarithmic if values differ by orders of magnitude
    """

    title: str
    traces: list[Figure]
    limit: float | None = None
    wide: bool = False

    @property
    def values(self) -> list[float]:
        """All values of the chart."""
        return [value for trace in self.traces for value in trace["y"] if value is not None]

    @property
    def near(self) -> bool:
        """Whether the limit is close enough to the values to be drawn."""
        return self.limit is not None and (self.wide or self.limit <= 2.0 * max(self.values, default=0.0))


def along_the_clock(service: ServedRun, limits: Sequence[Limits]) -> Figure:
    """Arrivals, queue, batch, KV cache, slots and TTFT below each other, on a shared time axis."""
    series, rules = series_of(service), service.rules
    scale, unit = _clock(service.duration_s)
    if len(series.engines) > 1:
        panels = [*_of_replicas(series, service), _ttft(series, limits)]
        return _stacked(panels, series, scale, f"simulated time, {unit}")
    means_and_peaks = ": {}, <b>peak</b>"
    panels = [
        Panel(
            title=f"requests per second: {_word('sent', BLUE)}, {_word('answered', ORANGE)}",
            traces=[_line(series.sent, BLUE, "sent/s"), _line(series.answered, ORANGE, "answered/s")],
        ),
        Panel(
            title="requests in the queue" + means_and_peaks.format(_word("mean", BLUE)),
            traces=_area(series.waiting, series.waiting_peak, BLUE),
        ),
        Panel(
            title="sequences in the batch" + means_and_peaks.format(_word("mean", GREEN)), limit=rules.max_num_seqs,
            traces=_area(series.running, series.running_peak, GREEN),
        ),
        Panel(
            title="KV cache in use, %" + means_and_peaks.format(_word("mean", VIOLET)), limit=100.0,
            traces=_area(series.kv, series.kv_peak, VIOLET),
        ),
    ]  # fmt: skip
    if service.adapter_names:
        slots = rules.adapters.max_loras
        title = f"adapters in the batch, of {slots} slot{'s' if slots != 1 else ''}" + means_and_peaks.format(
            _word("mean", ORANGE)
        )
        panels.append(
            Panel(title=title, traces=_area(series.adapters, series.adapters_peak, ORANGE), limit=slots or None)
        )
        loading = _line(100.0 * series.loads, CRITICAL, "% of the time loading adapters or switching weights")
        panels.append(Panel(title="loading adapters and switching weights, % of the time", traces=[loading]))
    return _stacked([*panels, _ttft(series, limits)], series, scale, f"simulated time, {unit}")


def _of_replicas(series: Series, service: ServedRun) -> list[Panel]:
    """Panels of arrivals, and of the queue, batch, cache and adapters with one line per replica."""
    rules = service.rules
    panels = [
        Panel(
            title=f"requests per second of all replicas: {_word('sent', BLUE)}, {_word('answered', ORANGE)}",
            traces=[_line(series.sent, BLUE, "sent/s"), _line(series.answered, ORANGE, "answered/s")],
        )
    ]
    shown: list[tuple[str, str, float | None]] = [
        ("waiting", "requests in the queue of each replica", None),
        ("running", "sequences in the batch of each replica", rules.max_num_seqs),
        ("kv", "KV cache of each replica in use, %", 100.0),
    ]
    if service.adapter_names:
        slots = rules.adapters.max_loras
        shown.append(("adapters", f"adapters in the batch of each replica, of {slots} slots", slots or None))
    for name, title, limit in shown:
        traces = [
            _line(getattr(engine, name), LINES[number % len(LINES)], f"replica {number}")
            for number, engine in enumerate(series.engines)
        ]
        panels.append(Panel(title=title, traces=traces, limit=limit))
    return panels


def _ttft(series: Series, limits: Sequence[Limits]) -> Panel:
    factor, unit = (1e3, "ms") if np.nanmax(series.ttft_p99_s, initial=0.0) < 1.0 else (1.0, "s")
    limit = min((one.ttft_s for one in limits), default=inf)
    median = _line(factor * series.ttft_median_s, BLUE, f"{unit} median TTFT")
    p99 = _line(factor * series.ttft_p99_s, CRITICAL, f"{unit} p99 TTFT")
    title = f"TTFT by time of sending, {unit}: {_word('median', BLUE)}, {_word('p99', CRITICAL)}"
    return Panel(title=title, traces=[median, p99], limit=None if limit == inf else factor * limit, wide=True)


def _word(text: str, colour: str) -> str:
    return f'<b><span style="color:{colour}">{text}</span></b>'


def _clock(end_s: float) -> tuple[float, str]:
    """Factor and unit of a time axis that ends at `end_s` seconds."""
    for least, factor, unit in ((3 * 3600.0, 3600.0, "h"), (600.0, 60.0, "min"), (1.0, 1.0, "s")):
        if end_s >= least:
            return 1.0 / factor, unit
    return 1e3, "ms"


def _line(values: Floats, colour: str, name: str) -> Figure:
    return {"y": _rounded(values), "name": name, "line": {"color": colour, "width": 1.6, "shape": "hvh"}}


def _area(means: Floats, peaks: Floats, colour: str) -> list[Figure]:
    mean = _line(means, colour, "mean") | {"fill": "tozeroy", "fillcolor": f"{colour}33"}
    peak = _line(peaks, "MUTED", "peak")
    return [peak | {"line": {"color": "MUTED", "width": 0.9, "shape": "hvh"}}, mean]


def _rounded(values: Any) -> list[float | None]:
    """Values rounded to four digits, enough for a picture; None for a missing one."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def _stacked(panels: Sequence[Panel], series: Series, scale: float, title: str) -> Figure:
    """Panels of equal width below each other, with a dashed line at the limit of a quantity that comes near it."""
    height = len(panels) * (PANEL + GAP)
    layout = layout_of(height=height + 60, showlegend=False, hovermode="x unified", hoversubplots="axis")
    layout["margin"] = layout["margin"] | {"t": 4, "b": 50, "l": 58}
    data: list[Figure] = []
    shapes: list[Figure] = []
    notes: list[Figure] = []
    for i, panel in enumerate(panels):
        name = f"y{i + 1}" if i else "y"
        top, bottom = 1.0 - (i * (PANEL + GAP) + GAP) / height, 1.0 - (i + 1) * (PANEL + GAP) / height
        layout[name.replace("y", "yaxis")] = _height_axis(panel) | {"domain": [bottom, top], "fixedrange": True}
        place = {"xref": "paper", "yref": "paper", "x": 0, "y": top, "xanchor": "left", "yanchor": "bottom"}
        notes.append({"text": panel.title, "showarrow": False, "align": "left", **place})
        shared = {"type": "scatter", "mode": "lines", "x": _rounded(scale * series.at_s), "yaxis": name}
        data += [
            {**shared, "hovertemplate": f"%{{y}} {safe(trace['name'])}<extra></extra>", **trace}
            for trace in panel.traces
        ]
        if panel.near:
            line = {"color": CRITICAL, "width": 1.2, "dash": "dash"}
            ends = {"x0": 0, "x1": 1, "y0": panel.limit, "y1": panel.limit}
            shapes.append({"type": "line", "xref": "paper", "yref": name, "line": line, **ends})
    layout["xaxis"] = {"title": {"text": title}, "anchor": f"y{len(panels)}", "rangemode": "tozero"}
    return {"data": data, "layout": layout | {"shapes": shapes, "annotations": notes}}


def _height_axis(panel: Panel) -> Figure:
    """A vertical axis from 0 to slightly above all values, or logarithmic if they differ by orders of magnitude."""
    above = [value for value in panel.values if value > 0]
    if panel.wide and above and max(above) > WORLDS_APART * min(above):
        axis = log_axis("", [*above, panel.limit])
        decades = [tick for tick in axis.get("tickvals", ()) if f"{tick:e}".startswith("1.000000e")]
        return axis | {"tickvals": decades, "ticktext": [amount_text(tick) for tick in decades]}
    most = max([*panel.values, panel.limit or 0.0] if panel.near else panel.values, default=0.0)
    return {"range": [0, 1.08 * most or 1.0], "nticks": 4, "title": {"text": ""}}


def distribution(service: ServedRun, name: str, label: str, limits: Sequence[Limits]) -> Figure:
    """Cumulative distribution of a latency over answered requests, one line per class, with the limits."""
    values, group = getattr(service.latencies, name), service.table.group
    kept = service.latencies.done & np.isfinite(values)
    classes = [(i, one.name) for i, one in enumerate(service.classes)] if len(service.classes) > 1 else []
    parts = [("all requests", kept)] if len(classes) not in range(2, MOST_CLASSES + 1) else [
        (which, kept & (group == i)) for i, which in classes
    ]  # fmt: skip
    largest = float(values[kept].max()) if kept.any() else 1.0
    factor, unit = (1e3, "ms") if largest < 2.0 else (1.0, "s")
    data: list[Figure] = []
    for i, (which, members) in enumerate(parts):
        if not members.any():
            continue
        shares = np.unique(np.concatenate([np.linspace(0, 90, 91), np.linspace(90, 99, 46), np.linspace(99, 100, 21)]))
        data.append(
            {
                "type": "scatter", "mode": "lines", "name": safe(which), "line": {"color": LINES[i], "width": 2},
                "x": _rounded(factor * np.percentile(values[members], shares)), "y": _rounded(shares),
                "hovertemplate": f"%{{y:.1f}}% of {safe(which)} within %{{x:.4g}} {unit}<extra></extra>",
            }
        )  # fmt: skip
    own = [(i, getattr(one, name)) for i, one in enumerate(limits) if getattr(one, name) < inf]
    axis = log_axis(f"{label}, {unit}", [*(x for trace in data for x in trace["x"]), *(factor * at for _, at in own)])
    colours = LINES if len(limits) == len(data) > 1 else [CRITICAL] * len(limits)
    layout = layout_of(
        height=300,
        showlegend=len(data) > 1,
        xaxis=axis,
        yaxis={"title": {"text": "% of requests"}, "range": [0, 101]},
        shapes=[_limit_line(factor * at, f"limit {seconds_text(at)}", colours[i], axis) for i, at in own],
    )
    layout["margin"] = layout["margin"] | {"l": 52}
    return {"data": data, "layout": layout}


def log_axis(title: str, values: Iterable[float | None]) -> Figure:
    """A logarithmic axis that covers all values, with plain numbers as tick labels."""
    axis: Figure = {"type": "log", "title": {"text": title}}
    low, high, ticks = log_ticks(values)
    if len(ticks) < 2:
        return axis | ({"range": [low, high], "nticks": 5} if high > low else {})
    return axis | {"range": [low, high], "tickvals": ticks, "ticktext": [amount_text(tick) for tick in ticks]}


def _limit_line(at: float, text: str, colour: str, axis: Figure) -> Figure:
    """A vertical dashed line with its label on the side that has more space."""
    low, high = axis.get("range", (0.0, 1.0))
    side = "right" if np.log10(at) > low + 0.6 * (high - low) else "left"
    look = {"textangle": 0, "textposition": "start", "xanchor": side, "font": {"size": 11, "color": "INK"}}
    line = {"color": colour, "width": 1.4, "dash": "dash"}
    return {
        "type": "line",
        "x0": at,
        "x1": at,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": line,
        "label": {"text": text, **look},
    }


def worst_first(adapters: pd.DataFrame) -> pd.DataFrame:
    """Requested adapters, the slowest first: those without an answer, then by p99 of TTFT."""
    asked = adapters[(adapters.requests > 0) & (adapters.adapter != BASE_NAME)]
    order = asked.p99_ttft_s.fillna(inf)
    return asked.assign(order=order).sort_values(["order", "longest_wait_s"], ascending=False).drop(columns="order")


def popularity(frame: pd.DataFrame, limits: Sequence[Limits]) -> Figure:
    """Scatter chart of adapters by number of requests and time to first token."""
    ttft = min((one.ttft_s for one in limits), default=inf)
    data = []
    for label, name, colour in (("median", "p50_ttft_s", BLUE), ("p99", "p99_ttft_s", CRITICAL)):
        known = frame[frame[name] > 0]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": label, "x": known.requests.tolist(),
                "y": _rounded(known[name]), "marker": {"color": colour, "size": 7, "opacity": 0.7},
                "hovertext": [
                    f"<b>{safe(str(row['adapter']))}</b><br>{row['requests']} requests, {row['loads']} loads<br>"
                    f"TTFT {seconds_text(row['p50_ttft_s'])}, p99 {seconds_text(row['p99_ttft_s'])}"
                    for row in known.to_dict("records")
                ], "hoverinfo": "text",
            }
        )  # fmt: skip
    shapes = [] if ttft == inf else [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": ttft, "y1": ttft,
         "line": {"color": CRITICAL, "width": 1.2, "dash": "dash"}}
    ]  # fmt: skip
    layout = layout_of(
        height=380,
        xaxis=log_axis("requests for the adapter", frame.requests),
        yaxis=log_axis("time to first token, s", [y for trace in data for y in (*trace["y"], ttft)])
        | {"automargin": True},
        shapes=shapes,
    )
    return {"data": data, "layout": layout}


def worst(frame: pd.DataFrame) -> Figure:
    """Bars of the adapters with the longest p99 of TTFT, with their medians."""
    shown = frame.head(MOST_WORST).iloc[::-1]
    names = [safe(str(name)) for name in shown.adapter]
    short = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
    places = list(range(len(names)))
    ends = shown.p99_ttft_s.fillna(shown.longest_wait_s)
    texts = [
        f"<b>{name}</b><br>{row['requests']} requests, {row['completed']} answered<br>longest wait "
        f"{seconds_text(row['longest_wait_s'])}, {row['loads']} loads"
        for name, row in zip(names, shown.to_dict("records"), strict=True)
    ]
    shared = {"type": "scatter", "mode": "markers", "y": places, "hovertext": texts, "hoverinfo": "text"}
    bars: Figure = {
        "type": "bar", "orientation": "h", "y": places, "x": _rounded(ends), "width": 0.16, "showlegend": False,
        "marker": {"color": "LINE"}, "hoverinfo": "skip",
    }  # fmt: skip
    data = [
        bars,
        shared | {"x": _rounded(shown.p50_ttft_s), "name": "median", "marker": {"color": BLUE, "size": 9}},
        shared | {"x": _rounded(ends), "name": "p99, or wait so far", "marker": {"color": CRITICAL, "size": 9}},
    ]
    layout = layout_of(
        height=max(220, 110 + 18 * len(names)),
        xaxis={"title": {"text": "time to first token, s"}, "rangemode": "tozero"},
        yaxis={"tickvals": places, "ticktext": short, "automargin": True},
    )
    return {"data": data, "layout": layout}
