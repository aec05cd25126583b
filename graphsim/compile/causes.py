"""The causes of a recorded step's time: by kind of operation and cause, as formulas that add up to it.

    compute_s, memory_s, network_s   flops, bytes or message at the datasheet's rates, whichever takes longest
    shortfall_s                      a kernel's time beyond that (below 0: its operands stay in the cache)
    launch_s the launch of its kernel
    engine_s                         the engine's work on the host that the device waits for
    other_s                          time of no operation

Only the critical path counts. Its length is a formula of sums and maxima of operation times, in which each has a
share: the number of its repeats, or 0 while another operation takes longer (`symbolic/slopes.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from graphsim.compile.prices import RecordedPrices
from graphsim.cost.base import Cost, annotate
from graphsim.deployment.inference import Inference
from graphsim.graph import walk
from graphsim.graph.schedule import makespan_s
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.ops.base import HOST, OpType
from graphsim.ops.kinds import kind_of
from graphsim.symbolic.again import again
from graphsim.symbolic.expr import Expr, Tape
from graphsim.symbolic.slopes import slopes
from graphsim.units import Num

CAUSES = ("compute_s", "memory_s", "network_s", "shortfall_s", "launch_s", "engine_s", "other_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The cause of a part of a time.

    quantity: `ttft_s`, or `step_s` of one decode step
    part: the kind of operation, `engine` or `rest`
    op_type: the type of operation, of the engine `REQUEST` or `LAUNCH`
    cause: one of CAUSES
    """

    quantity: str
    part: str
    op_type: str
    cause: str


Causes = dict[Cause, Any]
"""Seconds of each, formulas or numbers."""


def split(op: Op, cost: Cost, latency_s: Num) -> dict[str, Num]:
    """The latency of one operation by cause, from the parts of its price."""
    if op.stream == HOST or op.op_type is OpType.LAUNCH:
        return {"engine_s": latency_s}
    compute_s, memory_s, network_s = cost.compute_s, cost.memory_s, cost.network_s
    others_s, longest_s = np.maximum(memory_s, network_s), np.maximum(compute_s, np.maximum(memory_s, network_s))
    by_compute, by_memory = np.greater_equal(compute_s, others_s), np.greater_equal(memory_s, network_s)
    return {
        "compute_s": np.where(by_compute, compute_s, 0.0)[()],
        "memory_s": np.where(by_compute, 0.0, np.where(by_memory, memory_s, 0.0)[()])[()],
        "network_s": np.where(by_compute, 0.0, np.where(by_memory, 0.0, network_s)[()])[()],
        "launch_s": cost.launch_s,
        "shortfall_s": latency_s - cost.launch_s - longest_s,
    }


def causes_of(inference: Inference, first_token: Any, prompt: nx.DiGraph, step_s: Any, step: nx.DiGraph) -> Causes:
    """The causes of the time to the first token and of a decode step of a recorded inference.

    prompt, step: their graphs
    first_token, step_s: their times, to which the causes add up
    Raises NotRecordable if the schedule of a graph is not a formula of sums and maxima.
    """
    whole = _whole(inference)
    spent = inference.engine_time(prompt)
    engine = {"REQUEST": spent.request_s, "LAUNCH": spent.launches_s}
    found: Causes = {
        Cause(quantity="ttft_s", part="engine", op_type=name, cause="engine_s"): seconds
        for name, seconds in engine.items()
    }
    for quantity, graph in (("ttft_s", prompt), ("step_s", step)):
        for op, share in shares_of(graph, inference.hardware, inference.price):
            cost = whole(op, inference.hardware)
            for cause, seconds in split(op, cost, cost.latency_s).items():
                key = Cause(quantity=quantity, part=kind_of(op).value, op_type=op.op_type.name, cause=cause)
                found[key] = found.get(key, 0.0) + share * seconds
    for quantity, total_s in (("ttft_s", first_token), ("step_s", step_s)):
        told = sum((seconds for key, seconds in found.items() if key.quantity == quantity), start=0.0)
        found[Cause(quantity=quantity, part="rest", op_type="", cause="other_s")] = total_s - told
    return {key: seconds for key, seconds in found.items() if isinstance(seconds, Expr) or np.any(seconds)}


def _whole(inference: Inference) -> Callable[[Op, Hardware], Cost]:
    price: RecordedPrices | Any = inference.price
    return price.whole if hasattr(price, "whole") else price


def shares_of(graph: nx.DiGraph, hardware: Hardware, price: Callable[[Op, Hardware], Cost]) -> list[tuple[Op, Any]]:
    """The share of each operation's latency in a graph's time: its repeats on the critical path, else 0."""
    ops = {id(op): op for _, op, _ in walk(graph) if not op.once}
    tape, names = Tape(), {key: f"{at}" for at, key in enumerate(ops)}
    leaves: Any = {key: tape.variable(name) for key, name in names.items()}
    seconds = {names[key]: price(op, hardware).latency_s for key, op in ops.items()}
    bare = annotate(graph, hardware, lambda op, _: Cost(busy_s=leaves.get(id(op), 0.0)))
    found = slopes(makespan_s(bare))
    return [(op, again(found[names[key]], seconds.__getitem__)) for key, op in ops.items() if names[key] in found]
