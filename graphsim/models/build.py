"""From a model's description to the logical graph of one step: stem, repeated blocks, head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from graphsim.graph import add
from graphsim.models.config import ModelConfig
from graphsim.models.layers.base import Layer, Scope
from graphsim.models.phase import Phase
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


def build(config: ModelConfig, phase: Phase, precision: Precision, stage: range | None = None) -> nx.DiGraph:
    """The logical graph of one step: projections under their Hugging Face names, no adapter, one device.

    stage: indices of the layers to build, all by default; the stem comes with the first layer, the head with the last.
    """
    graph = nx.DiGraph()
    scope = Scope(graph=graph, phase=phase, precision=precision, hidden=config.hidden_size)
    stage = range(config.num_layers) if stage is None else stage
    if stage.start == 0:
        if config.encoder is not None:
            config.encoder.build(scope)
        x = config.stem.build(scope)
    else:
        x = scope.add("input", Input(elems=phase.tokens * config.hidden_size * config.streams), [])
    for stretch in stretches(config.layers[stage.start : stage.stop], stage.start):
        last = stretch.first + stretch.times * len(stretch.pattern) - 1
        name = f"layers_{stretch.first}_{last}" if last > stretch.first else f"layer_{stretch.first}"
        op = Repeat(
            role="layers",
            body=_body(config, phase, precision, stretch.pattern),
            times=stretch.times,
            first_layer=stretch.first,
            layers=len(stretch.pattern),
        )
        x = add(graph, name, op, [x])
    if stage.stop == config.num_layers:
        tied = config.head.tied and stage.start == 0  # another stage has the table, so this one needs its own
        replace(config.head, tied=tied).build(scope, x)
    return graph


def _body(config: ModelConfig, phase: Phase, precision: Precision, pattern: tuple[Layer, ...]) -> nx.DiGraph:
    graph = nx.DiGraph()
    x = add(graph, "input", Input(role="input", elems=phase.tokens * config.hidden_size * config.streams))
    for i, layer in enumerate(pattern):
        scope = Scope(
            graph=graph,
            phase=phase,
            precision=precision,
            hidden=config.hidden_size,
            prefix=config.layer_prefix,
            label=f"{i}." if len(pattern) > 1 else "",
            layer=i,
        )
        x = layer.build(scope, x)
    return graph
