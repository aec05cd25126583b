"""Data of pictures and tables of a training step: sums over its graph by direction and by kind of operation."""

from __future__ import annotations

import networkx as nx
import numpy as np

from graphsim.display.nodes import Entry, entries, number
from graphsim.ops import HOST, Direction, Op
from graphsim.ops.kinds import Kind, kind_of

DIRECTIONS = {
    Direction.FORWARD: "forward", Direction.RECOMPUTE: "recomputation", Direction.BACKWARD: "backward",
    Direction.UPDATE: "optimizer",
}  # fmt: skip
"""Display names of the directions, in the order of a step."""

MEMORY_PARTS = {
    "weights": "#2563eb", "adapters": "#ea580c", "gradients": "#9333ea", "optimizer": "#be185d",
    "activations": "#059669", "logits": "#0891b2", "workspace": "#94a3b8", "overhead": "#78716c",
}  # fmt: skip
"""Parts of a training device's memory, in the order of a bar, and their colours."""

TIME_PARTS = {
    "forward": "#2563eb", "recompute": "#93c5fd", "backward": "#ea580c", "optimizer": "#be185d", "exposed": "#9333ea",
    "bubble": "#cbd5e1",
}  # fmt: skip
TIME_LABELS = {"recompute": "recomputation", "exposed": "exposed communication", "bubble": "pipeline bubble"}


def busy_s(graph: nx.DiGraph, scenario: int = 0) -> dict[tuple[Direction, Kind], float]:
    """The device's busy seconds in a priced graph by direction and kind, all runs together, in the order of a step."""
    found: dict[tuple[Direction, Kind], float] = {}
    for entry in steady(graph):
        if entry.op.stream == HOST:
            continue
        key = (entry.op.direction, kind_of(entry.op))
        found[key] = found.get(key, 0.0) + seconds_of(entry, scenario)
    order = [(direction, kind) for direction in DIRECTIONS for kind in Kind]
    return {key: found[key] for key in order if found.get(key, 0.0) > 0}


def steady(graph: nx.DiGraph) -> list[Entry]:
    """All operations except those that run once, before the first step."""
    return [entry for entry in entries(graph) if not entry.op.once]


def seconds_of(entry: Entry, scenario: int) -> float:
    """Seconds of all runs of an operation."""
    return number(entry.data.get("latency_s", 0.0), scenario) * entry.times


def kind_text(kind: Kind) -> str:
    """Display name of a kind in a training step, which ends in a loss and not in a token."""
    return "embedding, head, loss" if kind is Kind.ENDS else kind.value


def is_trained(op: Op) -> bool:
    """Whether a forward operation has weights of its own that the method trains."""
    return op.direction is Direction.FORWARD and bool(np.any(np.greater(op.trained, 0)))


def is_frozen(op: Op) -> bool:
    """Whether a forward operation has weights of its own that the method does not train."""
    owns = bool(np.any(np.greater(getattr(op, "parameters", 0.0), 0)))
    return op.direction is Direction.FORWARD and owns and not is_trained(op)
