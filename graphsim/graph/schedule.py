"""When every operation starts and ends: launch order and streams, in max-plus arithmetic.

A stream is one more predecessor: start = max(inputs ready, stream free). The order on a stream is launch order and
does not depend on durations, so one pass over arrays serves all scenarios. A repeat is a linear map of the state in
(max, +) algebra and its times are a power of it: exact, in O(log times) (Baccelli et al., "Synchronization and
Linearity", 1992, chapter 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import networkx as nx
import numpy as np

from graphsim.errors import GraphError
from graphsim.ops import Input, Op, Repeat
from graphsim.units import Num

DATA = "data"
State = dict[str, Num]
"""When a block's incoming value is ready, and when each stream is free."""


def streams_of(graph: nx.DiGraph) -> list[str]:
    """Names of all streams that a graph uses, bodies of repeats included."""
    found: dict[str, None] = {}
    for _, op in graph.nodes(data="op"):
        for stream in streams_of(op.body) if isinstance(op, Repeat) else [op.stream]:
            found[stream] = None
    return list(found)


def initial_state(graph: nx.DiGraph) -> State:
    """Everything is ready at time zero."""
    state: State = dict.fromkeys([DATA, *streams_of(graph)], 0.0)
    return state


_NEVER = -np.inf
"""When a missing value is ready: a constant, so that nothing is computed or recorded for it."""


def latest(values: Iterable[Num]) -> Num:
    """The elementwise maximum."""
    return reduce(np.maximum, [value for value in values if value is not _NEVER] or [_NEVER])


def _behind(time: Num, span: Num) -> Num:
    return _NEVER if time is _NEVER or span is _NEVER else time + span


def forward(graph: nx.DiGraph, state: State, times: dict[str, tuple[Num, Num]] | None = None) -> State:
    """Run a graph from a state and return the state it leaves; `times` receives each node's start and finish.

    Results of an operation's own stream are ready when the stream is free, and are not checked. One-time nodes are
    left out: they end before the first step.
    """
    state, finish, stream_of = dict(state), dict[str, Num](), dict[str, str]()
    source = state[DATA]
    for name, node in graph.nodes(data=True):
        op: Op = node["op"]
        if op.once:
            continue
        before = [p for p in graph.predecessors(name) if p in finish]
        inputs = [finish[p] for p in before if stream_of[p] != op.stream or isinstance(op, Repeat)]
        ready = latest(inputs) if inputs else source if enters(op) and not before else _NEVER
        if isinstance(op, Repeat):
            start = ready
            state = _repeat(op, state | {DATA: ready})
        else:
            start = latest((ready, state[op.stream]))
            state[DATA] = state[op.stream] = _behind(start, _latency(name, node))
        finish[name], stream_of[name] = state[DATA], "" if isinstance(op, Repeat) else op.stream
        if times is not None:
            times[name] = (start, finish[name])
    return state


def enters(op: Op) -> bool:
    """Whether an operation without inputs waits for a block's incoming value; any other waits for its stream only."""
    return isinstance(op, Input | Repeat)


def makespan_s(graph: nx.DiGraph) -> Num:
    """Time from start to the end of the last operation; the length of the critical path."""
    if not len(graph):
        return 0.0
    return latest(forward(graph, initial_state(graph)).values())


def _latency(name: str, node: dict[str, Num]) -> Num:
    try:
        return node["latency_s"]
    except KeyError:
        raise GraphError(f"node '{name}' has no latency_s; annotate the graph first") from None


def _repeat(op: Repeat, state: State) -> State:
    return state | apply(power(transfer(op.body), op.times), state)


Transfer = dict[str, dict[str, Num]]
"""A block as a max-plus matrix: state after = max over keys of (state before + entry[after][before])."""


def transfer(body: nx.DiGraph) -> Transfer:
    """The matrix of one block: one run per component of the state, all others at minus infinity."""
    keys = list(initial_state(body))
    columns = {key: forward(body, {k: 0.0 if k == key else _NEVER for k in keys}) for key in keys}
    return {after: {before: columns[before][after] for before in keys} for after in keys}


def apply(matrix: Transfer, state: State) -> State:
    """The state after a block."""
    return {
        after: latest([_behind(state[before], entry) for before, entry in row.items()]) for after, row in matrix.items()
    }


def power(matrix: Transfer, times: int) -> Transfer:
    """The matrix of `times` blocks in a chain, by squaring."""
    result: Transfer | None = None
    while times:
        if times & 1:
            result = matrix if result is None else _product(matrix, result)
        times >>= 1
        if times:
            matrix = _product(matrix, matrix)
    if result is None:
        raise GraphError("a repeat runs its body 0 times; at least 1 is needed")
    return result


def _product(second: Transfer, first: Transfer) -> Transfer:
    keys = list(first)
    return {
        after: {before: latest([_behind(first[key][before], second[after][key]) for key in keys]) for before in keys}
        for after in keys
    }
