"""Overlap of compute and communication: the slowdown of compute, and the exposed part of a collective.

Collectives run on a device's cores and memory, so that compute that overlaps them is slower; a framework's own rules
leave part of them without any compute to overlap. Both are facts of a recipe (`contention`, `overlap`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from graphsim.ops import AllGather, AllReduce, Collective, ExchangeTokens, Gemm, LoraGemm, Op, ReduceScatter, Repeat
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """overlap: part of a collective that may overlap compute; contention: how much longer compute takes there."""

    overlap: Num = 1.0
    contention: Num = 1.0


SLOWDOWN = 1.189
"""Slowdown of kernels that run concurrently with data-parallel collectives, on average over GPT and LLaMA
models on A100, H100, MI210 and MI250; 1.4 at most (arXiv 2507.03114, abstract)."""

PLAIN = Beside()
"""A collective may be hidden completely, without any slowdown."""


def slowed_s(compute_s: Num, network_s: Num, beside: Beside) -> Num:
    """Seconds of compute with concurrent communication, including its exposed part.

    compute + (contention - 1) min(compute, overlap · network) + (1 - overlap) network
    """
    hidden_s = beside.overlap * network_s
    return compute_s + (beside.contention - 1.0) * np.minimum(compute_s, hidden_s) + (1.0 - beside.overlap) * network_s


def chunked_s(compute_s: Num, network_s: Num, chunks: Num, contention: Num = 1.0) -> Num:
    """Seconds of a GEMM with its collective in this many chunks, each sent while the next is multiplied.

    One chunk of the shorter of both is exposed: (c - 1)/c max(compute, network) + (compute + network)/c, which is what
    TransformerEngine's userbuffers and PyTorch's asynchronous tensor parallelism do; no chunks are one.
    """
    parts = np.maximum(chunks, 1.0)
    compute_s = compute_s + (contention - 1.0) * np.minimum(compute_s, network_s) * (parts - 1.0) / parts
    return (parts - 1.0) / parts * np.maximum(compute_s, network_s) + (compute_s + network_s) / parts


def exchanged_beside_compute(graph: nx.DiGraph, share: float) -> nx.DiGraph:
    """The priced graph with exchanges of experts' rows reduced to the part that another micro-batch's compute does not
    hide.

    The forward of one micro-batch and the backward of another run side by side, each computing while the other
    exchanges (NVIDIA/Megatron-LM, megatron/core/models/common/model_chunk_schedule_plan.py; arXiv 2412.19437, section
    3.2.1). At most as much is hidden as there is compute, which meanwhile takes SLOWDOWN times as long.
    share: of the exchanges that may be hidden
    """
    compute_s, exchange_s = _totals(graph)
    hidden = np.minimum(share, compute_s / np.maximum(exchange_s, 1e-30))
    return _exchanges_scaled(graph, 1.0 - hidden * (2.0 - SLOWDOWN))


def _totals(graph: nx.DiGraph) -> tuple[Num, Num]:
    """Seconds of a graph's kernels, and of its exchanges of experts' rows."""
    compute_s: Num = 0.0
    exchange_s: Num = 0.0
    for _, data in graph.nodes(data=True):
        op: Op = data["op"]
        if isinstance(op, Repeat):
            inner = _totals(op.body)
            compute_s, exchange_s = compute_s + op.times * inner[0], exchange_s + op.times * inner[1]
        elif isinstance(op, ExchangeTokens):
            exchange_s = exchange_s + data["latency_s"]
        elif op.launched and not isinstance(op, Collective):
            compute_s = compute_s + data["latency_s"]
    return compute_s, exchange_s


def _exchanges_scaled(graph: nx.DiGraph, left: Num) -> nx.DiGraph:
    """The graph with each exchange reduced to a share."""
    out = nx.DiGraph()
    out.graph.update(graph.graph)
    for name, data in graph.nodes(data=True):
        op: Op = data["op"]
        if isinstance(op, Repeat):
            data = {**data, "op": replace(op, body=_exchanges_scaled(op.body, left))}
        elif isinstance(op, ExchangeTokens):
            data = {**data, "latency_s": data["latency_s"] * left}
        out.add_node(name, **data)
    out.add_edges_from(graph.edges(data=True))
    return out


CHUNKED = (AllGather, ReduceScatter, AllReduce)
NEAR = 3
"""Most nodes between a GEMM and its collective: an adapter's addition and the sum of gradients may come between."""


def hidden_behind_products(graph: nx.DiGraph, share: float) -> nx.DiGraph:
    """The priced graph with tensor-parallel collectives reduced to the part that their GEMMs do not hide.

    A collective is sent in chunks while the GEMM before or after it is computed chunk by chunk (TransformerEngine,
    module/base.py, initialize_ub). Each GEMM hides one collective; adapters' GEMMs are too small to hide any.
    share: of a collective that is hidden at most: 3/4 in four chunks
    """
    chunks = 1.0 / max(1.0 - share, 1e-9)
    out, hiding = nx.DiGraph(), set[str]()
    out.graph.update(graph.graph)
    for name, data in graph.nodes(data=True):
        op: Op = data["op"]
        if isinstance(op, Repeat):
            data = {**data, "op": replace(op, body=hidden_behind_products(op.body, share))}
        elif isinstance(op, CHUNKED):
            product = _product_of(graph, name, hiding)
            if product:
                hiding.add(product)
                beside_s = graph.nodes[product]["latency_s"]
                data = {**data, "latency_s": chunked_s(beside_s, data["latency_s"], chunks) - beside_s}
        out.add_node(name, **data)
    out.add_edges_from(graph.edges(data=True))
    return out


def _product_of(graph: nx.DiGraph, name: str, taken: set[str]) -> str:
    """The GEMM that a collective feeds, or else follows; "" if there is none."""
    for onward in (graph.successors, graph.predecessors):
        found = [node for node in _near(graph, onward(name), onward) if node not in taken]
        if found:
            return found[0]
    return ""


def _near(graph: nx.DiGraph, nodes: Iterable[str], onward: object, steps: int = NEAR) -> Iterator[str]:
    """GEMMs of the model's own weights within `steps` steps, across nodes that are neither GEMM nor collective."""
    for node in nodes:
        op: Op = graph.nodes[node]["op"]
        if isinstance(op, Gemm) and not isinstance(op, LoraGemm) and not op.adapter:
            yield node
        elif steps > 1 and not isinstance(op, Gemm | Collective | Repeat):
            yield from _near(graph, onward(node), onward, steps - 1)  # type: ignore[operator]
