"""Window attention that a tower's code computes window by window, merged into one row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import sympy

from graphsim.models.capture.rows import Row, RowInput


def together(rows: Sequence[Row]) -> list[Row]:
    """The rows with the attentions of one module on parts of the same values merged into one, in place of the last.

    The other attention rows remain, but no row reads their results. `pairs` of a merged row is the number of query-key
    pairs of all windows.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.kind == "attention":
            groups.setdefault((row.module, row.op, *(taken.source for taken in row.inputs[:3])), []).append(row)
    last = {windows[-1].name: _merged(windows) for windows in groups.values() if len(windows) > 1}
    names = {row.name: windows[-1].name for windows in groups.values() if len(windows) > 1 for row in windows}
    return [last.get(row.name) or replace(row, inputs=_now(row.inputs, names)) for row in rows]


def _now(inputs: Iterable[RowInput], names: dict[str, str]) -> tuple[RowInput, ...]:
    return tuple(replace(taken, source=names.get(taken.source, taken.source)) for taken in inputs)


def _merged(windows: Sequence[Row]) -> Row:
    """One attention row that replaces those of all windows."""
    last = windows[-1]
    queries, keys = (sum(row.inputs[i].shape[-2] for row in windows) for i in (0, 1))
    pairs = sum(_sequences(row) * row.attributes["queries"] * row.inputs[1].shape[-2] for row in windows)
    inputs = tuple(
        RowInput(taken.source, (*taken.shape[:-2], size, taken.shape[-1]))
        for taken, size in zip(last.inputs[:3], (queries, keys, keys), strict=True)
    )
    out = (*last.out[:-3], sum(row.out[-3] for row in windows), *last.out[-2:])
    attributes = {**last.attributes, "queries": queries, "keys": keys, "pairs": sympy.Integer(pairs)}
    flops = sum(row.flops for row in windows)
    return replace(last, inputs=(*inputs, *last.inputs[3:]), outputs=(out,), flops=flops, attributes=attributes)


def _sequences(row: Row) -> int:
    return int(row.inputs[0].shape[0]) if len(row.inputs[0].shape) == 4 else 1
