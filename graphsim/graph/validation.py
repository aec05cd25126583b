"""The definition of a valid graph as a list of laws: those of any graph, and those of each stage of lowering."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from graphsim.errors import GraphError, choices_text
from graphsim.graph.sound import require_sound
from graphsim.graph.stages import STAGES, Stage
from graphsim.graph.text import number_text
from graphsim.graph.walking import edge_elems
from graphsim.ops import (
    Collective,
    Direction,
    ExchangeTokens,
    GatherTokens,
    Handed,
    Input,
    Launch,
    Op,
    Repeat,
    Sample,
    ScatterTokens,
    SendReceive,
)
from graphsim.ops.lora_experts import LoraDelta
from graphsim.ops.lora_kernels import LoraExpand, LoraFill, LoraShrink
from graphsim.units import Num, short

Broken = Iterator[tuple[str, str]]
"""Nodes that break a law, and what is wrong with each."""


@dataclass(frozen=True, slots=True)
class Law:
    """What holds at every node of a graph. stages: the stages whose graphs it holds for; by default all, also during
    construction.
    """

    broken: Callable[[nx.DiGraph], Broken]
    stages: tuple[Stage, ...] = ()


def validate(graph: nx.DiGraph, stage: Stage | None = None) -> None:
    """Raise GraphError unless the graph is a valid program, bodies of repeats included.

    Every node has an op with finite dimensions, nodes are in launch order, and each input has the size that the op
    expects.
    stage: also check what graphs of that stage may and must contain
    """
    if stage is not None and stage not in STAGES:
        raise GraphError(f"stage = {short(stage)} is not known; {choices_text(stage, STAGES)}")
    _validate(require_sound(graph), stage, "")


def _validate(graph: nx.DiGraph, stage: Stage | None, prefix: str) -> None:
    for law in LAWS:
        if not law.stages or stage in law.stages:
            for name, problem in law.broken(graph):
                raise GraphError(f"node '{prefix}{name}' {problem}")
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            _validate(op.body, stage, f"{prefix}{name}.")


def _gets_what_it_expects(graph: nx.DiGraph) -> Broken:
    """Weights that are used in place are not values; an op without elements needs no input (rank 0)."""
    for name, op in graph.nodes(data="op"):
        expected = op.in_elems
        if expected is None:
            continue
        sources = [source for source in graph.pred[name] if not graph.nodes[source]["op"].constant]
        found = sum((edge_elems(graph, source, name) for source in sources), start=0.0)
        if not np.all(_alike(found, expected) | np.equal(expected, 0.0)):
            listed = ", ".join(sources) or "(none)"
            yield name, f"expects {number_text(expected)} elements, its inputs {listed} bring {number_text(found)}"


def _leaves_what_it_takes(graph: nx.DiGraph) -> Broken:
    """A block's result is the next block's input, where one follows."""
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat) and op.times > 1:
            for inner, entry in op.body.nodes(data="op"):
                if isinstance(entry, Input) and not np.all(_alike(entry.elems, op.out_elems)):
                    taken, left = number_text(entry.elems), number_text(op.out_elems)
                    yield name, f"repeats a body whose '{inner}' takes {taken} elements and whose result has {left}"


def _alike(one: Num, other: Num) -> Any:
    return np.isclose(one, other, rtol=1e-9, atol=0.5)


def _is_taken(graph: nx.DiGraph) -> Broken:
    """A result without a consumer is the last node's, a token, a value for the next block, or empty."""
    *_, last = graph
    for name, op in graph.nodes(data="op"):
        if not (graph.succ[name] or name == last or op.idle or _stays(op)):
            yield name, "is unused: no node takes its result"


def _stays(op: Op) -> bool:
    """Tokens, what the next block takes, weights' gradients and their sums, and turns that run again to their end."""
    return op.ends or op.direction in (Direction.RECOMPUTE, Direction.UPDATE) or isinstance(op, Sample | Handed)


FROM: tuple[tuple[type[Op], Stage], ...] = (
    (ExchangeTokens, "logical"),
    (GatherTokens, "logical"),
    (ScatterTokens, "logical"),
    (Collective, "sharded"),
    (LoraFill, "lowered"),
    (LoraShrink, "lowered"),
    (LoraExpand, "lowered"),
    (LoraDelta, "lowered"),
    (Launch, "launched"),
)
"""The stage from which on a graph may hold a kind of op; the first match counts; all other kinds are always allowed."""


def _is_not_early(stage: Stage) -> Callable[[nx.DiGraph], Broken]:
    early = {kind: STAGES.index(first) > STAGES.index(stage) for kind, first in FROM}

    def broken(graph: nx.DiGraph) -> Broken:
        for name, op in graph.nodes(data="op"):
            kind = next((kind for kind in early if isinstance(op, kind)), None)
            if kind is not None and early[kind]:
                yield name, f"is of kind {type(op).__name__}, which no {stage} graph holds"

    return broken


def _has_its_launch(graph: nx.DiGraph) -> Broken:
    """Except for operations that pass values between pipeline stages, which are added after launches."""
    for name, op in graph.nodes(data="op"):
        launches = [source for source in graph.pred[name] if isinstance(graph.nodes[source]["op"], Launch)]
        wanted = 1 if op.launched and not op.once and not op.idle and not isinstance(op, SendReceive) else 0
        if len(launches) != wanted:
            yield name, f"waits for {len(launches)} launches; expected {wanted}"


LAWS: tuple[Law, ...] = (
    Law(_gets_what_it_expects),
    Law(_leaves_what_it_takes),
    Law(_is_taken, STAGES),
    *(Law(_is_not_early(stage), (stage,)) for stage in STAGES[:-1]),
    Law(_has_its_launch, ("launched",)),
)
"""Further laws of a sound graph (see `graphsim.graph.sound`), in the order in which it is checked: each law may take
those before it for granted."""
