"""What a notebook shows for an estimate, a step or a sweep: small tables that suit light and dark themes."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphsim.export.breakdown import seconds_by_kind
from graphsim.export.palette import TINTS
from graphsim.units import Num, bytes_text, scaled, seconds_text

if TYPE_CHECKING:
    import pandas as pd

    from graphsim.result import Estimate, PhaseEstimate

MOST_ROWS = 20
_CELL = "padding:.15em .8em;text-align:right"


def estimate_html(estimate: Estimate) -> str:
    """Body of `Estimate._repr_html_`: headline figures, ranges where there are many scenarios."""
    memory = estimate.memory
    used, capacity = (_range(size, bytes_text) for size in (memory.total_bytes, memory.capacity_bytes))
    rows = [
        ("time to first token", _range(estimate.ttft_s, seconds_text)),
        ("time per token", _range(estimate.tpot_s, seconds_text)),
        ("whole batch", _range(estimate.latency_s, seconds_text)),
        ("throughput", _range(estimate.tokens_per_s, lambda value: scaled(value, "tok/s"))),
        ("memory per device", f"{used} of {capacity}"),
    ]
    if np.any(np.asarray(estimate.one_time_s) > 0):
        rows.append(("once, before serving", _range(estimate.one_time_s, seconds_text)))
    scenarios = max(np.size(estimate.latency_s), 1)
    suffix = f", {scenarios} scenarios" if scenarios > 1 else ""
    title = f"{estimate.model} on {estimate.hardware}{suffix}"
    return _framed(title, _table(["", ""], rows))


def phase_html(phase: PhaseEstimate) -> str:
    """Body of `PhaseEstimate._repr_html_`: latency of the step and where its busy time goes."""
    sums = seconds_by_kind(phase.graph)
    whole = sum(sums.values()) or 1.0
    rows = []
    for kind, seconds in sums.items():
        width = round(90 * seconds / whole)
        bar = f'<span style="display:inline-block;height:.6em;width:{width}px;background:{TINTS[kind].line}"></span>'
        rows.append((kind.value, seconds_text(seconds), f"{100 * seconds / whole:.1f} %", _Raw(bar)))
    title = f"{phase.name} step: {_range(phase.latency_s, seconds_text)}"
    return _framed(title, _table(["part", "busy", "share", ""], rows))


def frame_html(frame: pd.DataFrame, title: str = "") -> str:
    """A sweep's frame with human units: at most twenty rows, the number of all."""
    shown = frame.head(MOST_ROWS)
    rows = [
        tuple(_value(str(name), value) for name, value in zip(shown.columns, row, strict=True))
        for row in shown.itertuples(index=False)
    ]
    cut = f", the first {MOST_ROWS}" if len(frame) > MOST_ROWS else ""
    head = f"{title}{': ' if title else ''}{len(frame)} rows{cut}"
    return _framed(head, _table([str(name) for name in frame.columns], rows))


class _Raw(str):
    """Markup that is safe as it is."""


def _value(name: str, value: object) -> str:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return "" if value is None else str(value)
    figure = float(value)
    if np.isnan(figure):
        return "–"
    for suffix, shown in (("_bytes", bytes_text), ("_per_s", lambda v: scaled(v, "/s")), ("_s", seconds_text)):
        if name.endswith(suffix):
            return shown(figure)
    return f"{figure:.6g}"


def _range(value: Num, shown: object) -> str:
    array = np.ravel(np.asarray(value, dtype=float))
    low, high = float(array.min()), float(array.max())
    text = shown(low) if callable(shown) else str(low)
    return str(text) if low == high else f"{text} to {shown(high)}"  # type: ignore[operator]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cell(text: str, i: int) -> str:
        left = ";text-align:left" if i == 0 else ""
        body = text if isinstance(text, _Raw) else html.escape(text.encode("utf-8", "replace").decode())
        return f'<td style="{_CELL}{left}">{body}</td>'

    lines = ["<tr>" + "".join(cell(text, i) for i, text in enumerate(row)) + "</tr>" for row in rows]
    top = "".join(f'<th style="{_CELL}">{html.escape(text)}</th>' for text in head)
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if any(head) else ''}<tbody>{''.join(lines)}</tbody></table>"


def _framed(title: str, body: str) -> str:
    return f"<div><strong>{html.escape(title)}</strong>{body}</div>"
