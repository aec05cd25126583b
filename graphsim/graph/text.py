"""A graph as text, one line per node: for golden files and for reading."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import networkx as nx
import numpy as np

from graphsim.graph.building import inputs_of
from graphsim.graph.sound import require_sound
from graphsim.ops import Op, Repeat, Residency


def to_text(graph: nx.DiGraph) -> str:
    """One line per node: name, op, inputs, dimensions; repeats indent their body.

    Raises GraphError unless it is a graph of operations in launch order with finite dimensions.
    """
    return _text(require_sound(graph), "")


def _text(graph: nx.DiGraph, indent: str) -> str:
    lines = []
    for name, op in graph.nodes(data="op"):
        sources = ", ".join(v.node + "".join(f"[{p}]" for p in v.parts) for v in inputs_of(graph, name))
        once = " once" if op.once else ""
        if isinstance(op, Repeat):
            lines.append(f"{indent}{name} = {op.times} x ({sources})")
            lines.append(_text(op.body, indent + "    "))
            continue
        dims = " ".join(f"{key}={number_text(value)}" for key, value in op.dims().items() if not _is_unset(op, key))
        lines.append(f"{indent}{name} = {type(op).__name__}({sources}) {dims}{_notes(op)}{once}".rstrip())
    return "\n".join(lines)


def _is_unset(op: Op, key: str) -> bool:
    """Whether a dimension is 0 and 0 is its default: a window, a limit, weights that this op does without."""
    default = next(field.default for field in fields(op) if field.name == key)
    return default == 0 and np.ndim(value := getattr(op, key)) == 0 and value == 0


def _notes(op: Op) -> str:
    split = getattr(op, "split", None)
    weights = getattr(op, "weights", None)
    where = "" if op.residency is Residency.All_offchip else f" {op.residency.name}"
    return (f" {split.value}" if split else "") + (f" {weights.name}" if weights else "") + where


def number_text(value: Any) -> str:
    """A number to twelve digits, or the range of an array over scenarios."""
    array = np.asarray(value, dtype=float)
    if array.ndim:
        return f"[{array.min():.12g}..{array.max():.12g}]"
    return f"{float(array):.12g}"
