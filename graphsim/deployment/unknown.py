"""Operations of a captured model without a formula, and their share of the time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference
from graphsim.models.config import ModelConfig
from graphsim.ops import Repeat


def unknown_noted(inference: Inference) -> Iterator[str]:
    """A sentence for each step in which such operations take time, with their share of what all operations take.

    None if times are arrays over scenarios, or sums of formulas, as there is no single share.
    """
    if not inference.deployment.once(_has_unknown):
        return
    for name, graph in (("prompt", inference.prefill_graph()), ("decode step", inference.decode_graph())):
        shares = _shares(graph)
        if shares:
            listed = ", ".join(f"{op} {share:.1%}" for op, share in list(shares.items())[:MOST])
            whole = sum(shares.values())
            yield f"of the {name}, {whole:.1%} of the time is spent in operations without a formula: {listed}"


def _has_unknown(deployment: Deployment) -> bool:
    """Whether the model file has blocks with such operations."""
    return any(_says_unknown(str(block)) for block in _blocks(deployment.model))


def _says_unknown(block: str) -> bool:
    from graphsim.ops.custom import NO_FORMULA

    return NO_FORMULA in block


MOST = 8


def _shares(graph: nx.DiGraph) -> dict[str, float]:
    """The largest first."""
    spent: defaultdict[str, float] = defaultdict(float)
    total = 0.0
    for attributes, times in _nodes(graph, 1):
        latency = attributes.get("latency_s", 0.0)
        if np.ndim(latency):
            return {}
        total += times * float(latency)
        if name := _unknown(attributes["op"]):
            spent[name] += times * float(latency)
    ordered = sorted(spent.items(), key=lambda item: -item[1])
    return {name: seconds / total for name, seconds in ordered} if total else {}


def _nodes(graph: nx.DiGraph, times: int) -> Iterator[tuple[dict[str, Any], int]]:
    for _, attributes in graph.nodes(data=True):
        op = attributes["op"]
        if isinstance(op, Repeat):
            yield from _nodes(op.body, times * op.times)
        else:
            yield attributes, times


def _blocks(model: ModelConfig) -> Iterator[object]:
    """The entries of a model file's blocks; none of a model that no such file describes."""
    yield from ((model.document or {}).get("blocks") or {}).values()


def _unknown(op: object) -> str:
    """The name of an operation without a formula; "" of any other."""
    from graphsim.ops.custom import NO_FORMULA, Compute

    return op.note.removeprefix(f"{NO_FORMULA}: ") if isinstance(op, Compute) and op.note.startswith(NO_FORMULA) else ""
