"""The operator table: one row per operation of a graph, as a DataFrame or CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx

from graphsim.display.nodes import Entry, bound_of, dims_text, entries, is_critical, number, require
from graphsim.ops import Direction

if TYPE_CHECKING:
    import pandas as pd

BEFORE = ("name", "op", "op_type", "times", "role", "dims")
DIRECTION = "direction"
WORK = ("flops", "vector_flops", "weight_bytes", "read_bytes", "write_bytes", "message_bytes")
TIMES = ("latency_s", "start_s", "finish_s", "slack_s")
AFTER = (*WORK, *TIMES, "bound", "critical", "once", "stream", "residency")


def frame_of(graph: nx.DiGraph, scenario: int = 0) -> pd.DataFrame:
    """One row per operation in launch order; figures are those of one run, `times` is the number of runs.

    Columns: name (`repeat.node` inside a repeat), op, op_type, direction (in a training step), times, role, dims as
    text and one column for each, flops (of matrix units), vector_flops, weight_bytes, read_bytes (weights included),
    write_bytes, message_bytes; latency_s and bound if the graph is annotated; start_s, finish_s, slack_s, critical if
    it is scheduled; once, stream, residency (memory level of the operands). Inside a repeat, start_s and finish_s
    are relative to the start of its middle iteration.
    scenario: index of the scenario, if numbers are arrays
    Raises ConfigError if there is no such scenario.
    """
    import pandas as pd

    require("frame_of", graph, nx.DiGraph)
    listed = list(entries(graph))
    rows = [_row(entry, scenario) for entry in listed]
    if any(entry.op.direction is not Direction.FORWARD for entry in listed):
        rows = [row | {DIRECTION: entry.op.direction.value} for row, entry in zip(rows, listed, strict=True)]
    found = dict.fromkeys(name for row in rows for name in row)
    dims = [name for name in found if name not in {*BEFORE, *AFTER, DIRECTION}]
    columns = [name for name in (*BEFORE, *dims, *AFTER) if name in found or not rows]
    if DIRECTION in found:
        columns.insert(columns.index("times"), DIRECTION)
    return pd.DataFrame(rows, columns=columns)


def _row(entry: Entry, scenario: int) -> dict[str, Any]:
    op, data = entry.op, entry.data
    work = op.work()
    row: dict[str, Any] = {name: number(value, scenario) for name, value in op.dims().items()}
    row |= {
        "name": _utf8(entry.name),
        "op": type(op).__name__,
        "op_type": op.op_type.name,
        "times": entry.times,
        "role": _utf8(op.role),
        "dims": dims_text(op, scenario),
        "once": op.once,
        "stream": op.stream,
        "residency": op.residency.name,
    }
    row |= {name: number(getattr(work, name), scenario) for name in WORK}
    row |= {name: number(data[name], scenario) for name in TIMES if name in data}
    if "latency_s" in data:
        row["bound"] = bound_of(data, scenario)
    critical = is_critical(data, scenario)
    return row if critical is None else row | {"critical": critical}


def _utf8(text: str) -> str:
    """The text without lone surrogates, which cannot be encoded."""
    return text.encode("utf-8", errors="replace").decode()
