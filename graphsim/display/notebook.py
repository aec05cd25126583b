"""HTML that a notebook shows for an estimate, a step or a sweep: small tables for light and dark themes."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphsim.brief import figure_text, range_text
from graphsim.display.breakdown import seconds_by_kind
from graphsim.display.intervals import interval_text
from graphsim.display.nodes import number
from graphsim.display.palette import TINTS
from graphsim.display.shown import ShownEstimate, ShownStep
from graphsim.units import Num, bytes_text, joules_text, seconds_text, throughput_text, watts_text

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 20
_CELL = "padding:.15em .8em"
_LONG = 32
"""Number of characters from which a cell counts as running text."""


def estimate_html(estimate: ShownEstimate) -> str:
    """Body of `Estimate._repr_html_`: headline figures, as ranges if there are several scenarios."""
    memory = estimate.memory
    used, capacity = (range_text(size, bytes_text) for size in (memory.total_bytes, memory.capacity_bytes))
    rows = [*_figures(estimate), ("memory per device", f"{used} of {capacity}")]
    energy = estimate.energy
    if np.all(np.asarray(energy.limit_watts) > 0):
        limit = range_text(energy.limit_watts, watts_text)
        rows.append(("power of a device", f"{range_text(energy.watts, watts_text)} of {limit}"))
        rows.append(("energy per token", range_text(energy.per_token_j, joules_text)))
    if np.any(np.asarray(estimate.one_time_s) > 0):
        rows.append(("once, before serving", range_text(estimate.one_time_s, seconds_text)))
    scenarios = max(np.size(estimate.latency_s), 1)
    suffix = f", {scenarios} scenarios" if scenarios > 1 else ""
    title = f"{estimate.model} on {estimate.hardware}{suffix}"
    notes = "".join(f"<div>note: {html.escape(_utf8(note))}</div>" for note in estimate.notes)
    return framed(title, table(["", ""], rows) + notes)


def _figures(estimate: ShownEstimate) -> list[tuple[str, str]]:
    """The figures with their intervals, or as ranges if there are several scenarios."""
    named: list[tuple[str, str, Num, Callable[[float], str]]] = [
        ("ttft_s", "time to first token", estimate.ttft_s, seconds_text),
        ("tpot_s", "time per token", estimate.tpot_s, seconds_text),
        ("latency_s", "whole batch", estimate.latency_s, seconds_text),
        ("tokens_per_s", "throughput", estimate.tokens_per_s, throughput_text),
    ]
    if np.size(estimate.latency_s) > 1:
        return [(label, range_text(value, shown)) for _, label, value, shown in named]
    ends = {name: (number(low), number(high)) for name, (low, high) in estimate.intervals().items()}
    return [(label, interval_text(number(value), ends.get(name), shown)) for name, label, value, shown in named]


def phase_html(phase: ShownStep) -> str:
    """Body of `PhaseEstimate._repr_html_`: latency of the step and a breakdown of its busy time."""
    sums = seconds_by_kind(phase.graph)
    whole = sum(sums.values()) or 1.0
    rows = []
    for kind, seconds in sums.items():
        width = round(90 * seconds / whole)
        bar = f'<span style="display:inline-block;height:.6em;width:{width}px;background:{TINTS[kind].line}"></span>'
        rows.append((kind.value, seconds_text(seconds), f"{100 * seconds / whole:.1f}%", _Raw(bar)))
    title = f"{phase.name} step: {range_text(phase.latency_s, seconds_text)}"
    return framed(title, table(["part", "busy", "share", ""], rows))


def frame_html(frame: pd.DataFrame, title: str = "") -> str:
    """A table with readable units: at most twenty rows and the total; values common to all rows are stated once."""
    shared = _shared(frame)
    shown = frame.drop(columns=list(shared)).head(MOST_ROWS)
    labels = [] if _is_plain(frame) else [str(frame.index.name or "")]
    rows = [
        (*([str(label)] if labels else []), *(_value((str(name), str(label)), value) for name, value in row.items()))
        for label, row in zip(shown.index, shown.to_dict("records"), strict=True)
    ]
    cut = f", the first {MOST_ROWS}" if len(frame) > MOST_ROWS else ""
    head = f"{title}{': ' if title else ''}{len(frame)} row{'s' if len(frame) != 1 else ''}{cut}"
    same = ", ".join(f"{name} = {text}" for name, text in shared.items() if text not in ("", "–"))
    note = f"<div>in all rows {html.escape(_utf8(same))}</div>" if same else ""
    return framed(head, note + table([*labels, *(str(name) for name in shown.columns)], rows))


def _is_plain(frame: pd.DataFrame) -> bool:
    """Whether the index is a plain numbering of the rows."""
    return frame.index.name is None and frame.index.dtype.kind in "iu"


def _shared(frame: pd.DataFrame) -> dict[str, str]:
    """Columns with the same value in all rows, as text; none for a single row."""
    if len(frame) < 2:
        return {}
    texts = {str(name): {str(value) for value in frame[name].unique()} for name in frame.columns}
    return {name: _value((name,), frame[name].iloc[0]) for name, found in texts.items() if len(found) == 1}


class _Raw(str):
    """Markup that needs no escaping."""


def _value(names: Sequence[str], value: object) -> str:
    """A cell for display; the unit is that of the first of its names that has one."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return "" if value is None else str(value)
    return figure_text(names, float(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a header as markup; text is escaped."""

    def cell(tag: str, text: str, i: int) -> str:
        long = not isinstance(text, _Raw) and len(text) > _LONG
        style = _CELL + (";min-width:22em" if long else ";white-space:nowrap")
        style += ";text-align:left" if i == 0 or long else ";text-align:right"
        body = text if isinstance(text, _Raw) else html.escape(_utf8(text))
        return f'<{tag} style="{style}">{body}</{tag}>'

    lines = ["<tr>" + "".join(cell("td", text, i) for i, text in enumerate(row)) + "</tr>" for row in rows]
    top = "".join(cell("th", text, i) for i, text in enumerate(head))
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if any(head) else ''}<tbody>{''.join(lines)}</tbody></table>"


def framed(title: str, body: str) -> str:
    """Markup below a title, which is escaped."""
    return f"<div><strong>{html.escape(title)}</strong>{body}</div>"


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
