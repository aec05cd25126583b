"""Which layers are alike, told from modules alone."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphsim.models.capture.kinds import kinds  # noqa: E402
from tests.models.capture.dispatched import Layer, Model  # noqa: E402

pytestmark = pytest.mark.slow


def keys(layers: list[nn.Module]) -> tuple[int, ...]:
    return kinds(Model(layers))[0].keys


def test_settings_tell_layers_apart_and_indices_do_not() -> None:
    assert keys([Layer(i) for i in range(5)]) == (0, 0, 0, 0, 0)
    assert keys([Layer(i, window=4 if i % 2 else None) for i in range(5)]) == (0, 1, 0, 1, 0)
    assert keys([Layer(i, drop_path_rate=i / 10) for i in range(5)]) == (0, 1, 2, 3, 4)
    assert keys([Layer(i, drop_path_rate=i / 10).eval() for i in range(5)]) == (0, 0, 0, 0, 0)
    assert keys([Layer(i, scale=0.3 * i + 0.1) for i in range(5)]) == (0, 0, 0, 0, 0)
    assert keys([Layer(i, window=2**i) for i in range(5)]) == (0, 1, 2, 3, 4)
    assert keys([Layer(0, layer_idx=i) for i in (3, 7)]) == (0, 0)


def test_shared_tensors_tell_layers_apart() -> None:
    one, two = nn.Linear(8, 8), nn.Linear(8, 8)
    layers = [Layer(i) for i in range(6)]
    for i, layer in enumerate(layers):
        layer.inner = one if i % 3 else two
    assert keys(layers) == (0, 1, 1, 0, 1, 1)


class Alternating(Layer):
    def forward(self, x: Any, shift: Any = None) -> Any:
        return self.inner(x) if self.number % 2 else self.inner(self.inner(x))


class Loose(Layer):
    def forward(self, x: Any, shift: Any = None) -> Any:
        period = 3
        return self.inner(x) if self.number % period else self.inner(self.inner(x))


class LooksUp(Layer):
    def forward(self, x: Any, shift: Any = None) -> Any:
        seen: dict[int, Any] = {}
        return self.inner(x) if seen.get(self.number) is None and self.wide[self.number] == 1 else x


def test_an_index_that_looks_something_up_asks_nothing_but_for_the_entry() -> None:
    assert keys([LooksUp(i, wide=[0, 0, 1, 0, 1]) for i in range(5)]) == (0, 0, 1, 0, 1)


def test_what_a_layer_asks_of_its_index_tells_it_apart() -> None:
    assert keys([Alternating(i) for i in range(5)]) == (0, 1, 0, 1, 0)
    assert len(set(keys([Loose(i) for i in range(5)]))) == 5  # depends on more than the layer: none stands for another


def test_config_entries_tell_layers_apart() -> None:
    model = Model([Layer(i) for i in range(4)])
    model.config = type("Config", (), {})()
    model.config.layer_types, model.config.full_idxs = ["a", "a", "b", "a"], [0, 1, 2, 3]
    assert kinds(model)[0].keys == (0, 0, 1, 0)


def test_lists_of_lists_are_stacks_of_their_parts() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList(nn.ModuleList([Layer(i), Layer(i, width=4)]) for i in range(4))
    (stack,) = kinds(model)
    assert (stack.path, stack.names[3], stack.keys) == ("layers.*", "layers.1.1", (0, 1) * 4)
