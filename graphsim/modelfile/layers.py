"""The layers of a model file: a number, or a list of groups that differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphsim.layers.base import Layer
from graphsim.modelfile import sections
from graphsim.modelfile.overrides import Overrides
from graphsim.reading import Fields

MOST_LAYERS = 10_000


def read_layers(model: Fields, hidden: int) -> tuple[Layer, ...]:
    """One description per layer."""
    given = model.raw("layers")
    if not isinstance(given, list):
        times: int = model.integer("layers", most=MOST_LAYERS)
        return (_layer(Overrides(model), hidden),) * times
    layers: list[Layer] = []
    for pattern, times in _groups(model, given):
        body = [_layer(Overrides(*levels), hidden) for levels in pattern]
        if len(layers) + len(body) * times > MOST_LAYERS:
            model.problems.append(f"layers: more than {MOST_LAYERS} in all; allowed: at most {MOST_LAYERS}")
            break
        layers += body * times
    if not given:
        model.problem("layers", f"is empty; expected a whole number from 1 to {MOST_LAYERS}, or a list of groups")
    return tuple(layers)


def _groups(model: Fields, given: list[Any]) -> Iterator[tuple[list[tuple[Fields, ...]], int]]:
    """For each entry of the list its pattern (each layer as levels of overrides) and how often it repeats."""
    for i, entry in enumerate(given[:MOST_LAYERS]):
        group = model.child(entry, f"layers[{i}]")
        times = group.integer("repeat", 1, most=MOST_LAYERS)
        if "pattern" not in group:
            yield [(group, model)], times
            continue
        pattern = group.sequence("pattern", most=MOST_LAYERS)
        if not pattern and isinstance(group.raw("pattern"), list):
            group.problem("pattern", "is empty; expected at least one layer")
        yield [(group.child(item, f"layers[{i}].pattern[{j}]"), group, model) for j, item in enumerate(pattern)], times


def _layer(levels: Overrides, hidden: int) -> Layer:
    mixer = sections.attention(levels.below("attention"), hidden)
    feed_forward = sections.mlp(levels.below("mlp"))
    return sections.block(levels, mixer, feed_forward)
