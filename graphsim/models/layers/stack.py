"""Layers in sequence: equal ones are built once and repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from graphsim.graph import add
from graphsim.models.layers.base import Layer, Scope, unique
from graphsim.ops import Input, Repeat
from graphsim.ops.precision import Precision

LONGEST_PATTERN = 12
"""Layers that one repeated body may hold (Gemma-3 alternates every 6, Jamba every 8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """`times` repetitions of a pattern of layers, the first of which is layer `first`."""

    pattern: tuple[Layer, ...]
    times: int
    first: int


def stretches(layers: Sequence[Layer], first: int = 0, alike: Sequence[object] | None = None) -> Iterator[Stretch]:
    """The layers as few repetitions of short patterns: greedy, the longest stretch first, then the shortest pattern.

    alike: a key that is equal for layers that may share a body, if equal descriptions are not sufficient
    """
    start = 0
    alike = layers if alike is None else alike
    while start < len(layers):
        best = (1, 1)
        for period in range(1, min(LONGEST_PATTERN, len(layers) - start) + 1):
            times = _times(alike, start, period)
            if period * times > best[0] * best[1] and (times > 1 or period == 1):
                best = (period, times)
        period, times = best
        yield Stretch(pattern=tuple(layers[start : start + period]), times=times, first=first + start)
        start += period * times


def _times(alike: Sequence[object], start: int, period: int) -> int:
    times = 1
    while alike[start + times * period : start + (times + 1) * period] == alike[start : start + period]:
        times += 1
    return times


def stack(scope: Scope, layers: Sequence[Layer], x: str, first: int = 0) -> str:
    """Add layers after the value `x`, as repeats of bodies; the first of them is layer `first`.

    scope: of the graph around them; its prefix is the module path of a layer, `{}` standing for the index
    """
    for stretch in stretches(layers, first, kinds(layers, first, scope.prefix, scope.precision)):
        last = stretch.first + stretch.times * len(stretch.pattern) - 1
        name = f"layers_{stretch.first}_{last}" if last > stretch.first else f"layer_{stretch.first}"
        op = Repeat(
            role="layers",
            body=_body(scope, stretch),
            times=stretch.times,
            first_layer=stretch.first,
            layers=len(stretch.pattern),
        )
        sources = [x, scope.source.node] if scope.source else [x]
        x = add(scope.graph, unique(scope.graph, f"{scope.label}{name}"), op, sources)
    return x


def kinds(layers: Sequence[Layer], first: int, prefix: str, precision: Precision) -> Sequence[object]:
    """A key that is equal for layers that may share a body: the layer, and the own formats of its modules."""
    if not precision.modules:
        return layers
    seen: dict[int, int] = {}  # most layers are one object
    numbers: dict[object, int] = {}
    for layer in layers:
        seen.setdefault(id(layer), numbers.setdefault(layer, len(numbers)))
    return [(seen[id(layer)], precision.modules.of_layer(prefix, i)) for i, layer in enumerate(layers, first)]


def _body(scope: Scope, stretch: Stretch) -> nx.DiGraph:
    graph = nx.DiGraph()
    x = add(graph, "input", Input(role="input", elems=scope.tokens * scope.hidden * scope.streams))
    if scope.source is not None:
        from graphsim.ops import EncoderOutput

        entry = EncoderOutput(role="encoder_output", elems=scope.source.elems)
        scope = replace(scope, source=replace(scope.source, node=add(graph, "encoder_output", entry)))
    for i, layer in enumerate(stretch.pattern):
        label = f"{i}." if len(stretch.pattern) > 1 else ""
        inner = replace(scope, graph=graph, label=label, layer=i, index=stretch.first + i)
        x = layer.build(inner, x)
    return graph
