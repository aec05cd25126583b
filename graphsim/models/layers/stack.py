"""Layers one behind another: equal ones are built once and repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from graphsim.graph import add
from graphsim.models.layers.base import Layer, Scope
from graphsim.ops import EncoderOutput, Input, Repeat

LONGEST_PATTERN = 12
"""Layers that one repeated body may hold (Gemma-3 alternates every 6, Jamba every 8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """`times` repetitions of a pattern of layers, the first of which is layer `first`."""

    pattern: tuple[Layer, ...]
    times: int
    first: int


def stretches(layers: Sequence[Layer], first: int = 0) -> Iterator[Stretch]:
    """The layers as few repetitions of short patterns: greedy, the longest stretch first, then the shortest pattern."""
    start = 0
    while start < len(layers):
        best = (1, 1)
        for period in range(1, min(LONGEST_PATTERN, len(layers) - start) + 1):
            times = _times(layers, start, period)
            if period * times > best[0] * best[1] and (times > 1 or period == 1):
                best = (period, times)
        period, times = best
        yield Stretch(pattern=tuple(layers[start : start + period]), times=times, first=first + start)
        start += period * times


def _times(layers: Sequence[Layer], start: int, period: int) -> int:
    times = 1
    while layers[start + times * period : start + (times + 1) * period] == layers[start : start + period]:
        times += 1
    return times


def stack(scope: Scope, layers: Sequence[Layer], x: str, first: int = 0) -> str:
    """Add layers behind the value `x`, as repeats of bodies; the first of them is layer `first`.

    scope: of the graph around them; its prefix is the module path of a layer, `{}` standing for the index
    """
    for stretch in stretches(layers, first):
        last = stretch.first + stretch.times * len(stretch.pattern) - 1
        name = f"layers_{stretch.first}_{last}" if last > stretch.first else f"layer_{stretch.first}"
        op = Repeat(
            role="layers",
            body=_body(scope, stretch.pattern),
            times=stretch.times,
            first_layer=stretch.first,
            layers=len(stretch.pattern),
        )
        x = add(scope.graph, f"{scope.label}{name}", op, [x, scope.source.node] if scope.source else [x])
    return x


def _body(scope: Scope, pattern: tuple[Layer, ...]) -> nx.DiGraph:
    graph = nx.DiGraph()
    x = add(graph, "input", Input(role="input", elems=scope.tokens * scope.hidden))
    if scope.source is not None:
        entry = EncoderOutput(role="encoder_output", elems=scope.source.elems)
        scope = replace(scope, source=replace(scope.source, node=add(graph, "encoder_output", entry)))
    for i, layer in enumerate(pattern):
        inner = replace(scope, graph=graph, label=f"{i}." if len(pattern) > 1 else "", layer=i)
        x = layer.build(inner, x)
    return graph
