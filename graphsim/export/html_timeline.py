"""The report's timeline of a step as a plain Plotly figure."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from graphsim.display.nodes import dims_text
from graphsim.display.palette import TINTS
from graphsim.export.html_chart import Figure, layout_of, safe
from graphsim.export.spread import Turn, runs_of
from graphsim.ops.kinds import Kind, kind_of
from graphsim.units import seconds_text

MOST_BARS = 4000
"""Largest number of runs that a timeline shows one by one; of longer steps, only the first iteration of each repeat."""

PALE = 0.35
"""Opacity of runs off the critical path."""

TURNS_IN_VIEW = 2
"""Iterations of the first repeat in the initial view of a timeline."""


def timeline(graph: nx.DiGraph, label: str, scenario: int) -> Figure:
    """Timeline of a step: one lane per stream, one bar per run, pale off the critical path.

    The initial view has the first iterations, or all of a pipeline. Of steps with more than MOST_BARS runs, only the
    first iteration of each repeat is shown run by run.
    label: label of the time axis
    scenario: index of the scenario, if numbers are arrays
    """
    runs = [turn for turn in runs_of(graph, scenario) if turn.latency_s > 0]
    many = len(runs) > MOST_BARS
    turns = [turn for turn in runs if all(i == 0 for _, i in turn.turns)] if many else runs
    data = [
        _lane(kind.value, TINTS[kind].line, [_bar_of(turn, scenario) for turn in members])
        for kind in Kind
        if (members := [turn for turn in turns if kind_of(turn.op) is kind])
    ]
    if many:
        data.append(_lane("further turns", "LINE", _further(runs)))
    streams = list(dict.fromkeys(turn.op.stream for turn in runs))
    staged = any(turn.op.stage for turn in runs)  # a pipeline: only the whole step shows all stages
    axes = {
        "xaxis": {"title": {"text": f"{label}, ms"}} | ({} if staged else _view(turns)),
        "yaxis": {"categoryarray": streams[::-1], "categoryorder": "array", "automargin": True, "fixedrange": True},
    }
    height = 170 + (24 if staged else 46) * len(streams)
    return {"data": data, "layout": layout_of(barmode="overlay", bargap=0.25, height=height, dragmode="pan", **axes)}


@dataclass(frozen=True, slots=True)
class _Span:
    """A bar of a timeline."""

    stream: str
    start_s: float
    length_s: float
    text: str
    critical: bool


def _bar_of(turn: Turn, scenario: int) -> _Span:
    return _Span(turn.op.stream, turn.start_s, turn.latency_s, _run_text(turn, scenario), turn.critical)


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
    """The initial axis range, which covers the first iterations of the first repeat."""
    first = next((turn.turns[0][0] for turn in turns if turn.turns), None)
    shown = [t.finish_s for t in turns if t.turns and t.turns[0][0] == first and t.turns[0][1] < TURNS_IN_VIEW]
    return {"range": [0.0, max(shown) * 1e3]} if shown else {}


def _further(runs: list[Turn]) -> list[_Span]:
    """One bar per repeat and stream for all iterations after the first."""
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


def _run_text(turn: Turn, scenario: int) -> str:
    mark = ", on the critical path" if turn.critical else ""
    return (
        f"<b>{safe(turn.name)}</b><br>{safe(dims_text(turn.op, scenario))}<br>"
        f"{seconds_text(turn.latency_s)} from {seconds_text(turn.start_s)}{mark}"
    )
