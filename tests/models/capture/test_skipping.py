"""Layers of one kind run once, the others are passed over where they are called alike."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphsim.models.capture.kinds import kinds  # noqa: E402
from graphsim.models.capture.skipping import (  # noqa: E402
    KindsDiffer,
    Place,
    SkippedLayers,
    one_of_each,
    run_one_of_each,
)
from tests.models.capture.dispatched import Layer, Model, Rows, rows_of  # noqa: E402

pytestmark = pytest.mark.slow


def ran(model: nn.Module, *args: Any) -> tuple[Any, Rows, SkippedLayers]:
    def run(passed: SkippedLayers) -> tuple[Any, Rows, SkippedLayers]:
        with torch.no_grad(), rows_of(model) as rows:
            return model(*args), rows, passed

    return run_one_of_each(model, run)


def products(rows: Rows) -> list[str]:
    return [module for module, row in rows.rows if row[0] == "aten.addmm.default"]


def test_passed_over_layers_dispatch_nothing_and_are_known_by_what_they_yield() -> None:
    model = Model([Layer(i) for i in range(5)])
    forwards = [layer.forward for layer in model.layers]
    result, rows, passed = ran(model, torch.zeros(3, 8))
    assert products(rows) == ["layers.0.inner"]
    assert {module for module, _ in rows.rows} == {"layers.0.inner"}
    assert passed.source[id(result)] == Place("layers", 4)
    assert {place.layer for place in passed.source.values()} == {1, 2, 3, 4}
    assert [layer.forward for layer in model.layers] == forwards
    assert all("forward" not in vars(layer) for layer in model.layers)


@pytest.mark.parametrize("shifts", [[0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0, 1], [0, 1, 1, 1, 2, 2]])
def test_a_tensor_that_layers_share_tells_them_apart(shifts: list[int]) -> None:
    model = Model([Layer(i) for i in range(len(shifts))], shifts)
    _, rows, passed = ran(model, torch.zeros(3, 8))
    (stack,) = passed.stacks
    assert all(shifts[i] == shifts[j] for i in range(len(shifts)) for j in range(i) if stack.keys[i] == stack.keys[j])
    assert len(products(rows)) == len(set(stack.keys)) == len(set(shifts))


class Slices(Model):
    def forward(self, x: Any) -> Any:
        own = torch.zeros(len(self.layers), 8)
        for i, layer in enumerate(self.layers):
            x = layer(x, own[i])
        return x


class Growing(Model):
    def forward(self, x: Any) -> Any:
        for i, layer in enumerate(self.layers):
            x = layer(torch.cat([x, x]) if i == 2 else x)
        return x


def test_slices_of_a_tensor_do_not_tell_layers_apart_and_sizes_do() -> None:
    assert products(ran(Slices([Layer(i) for i in range(5)]), torch.zeros(3, 8))[1]) == ["layers.0.inner"]
    result, rows, _ = ran(Growing([Layer(i) for i in range(5)]), torch.zeros(3, 8))
    assert products(rows) == ["layers.0.inner", "layers.2.inner"]
    assert result.shape == (6, 8)


class Keeps(Layer):
    """Yields what it was given beside its own result, and writes a tensor of its caller's."""

    def forward(self, x: Any, memory: Any, cache: Any) -> Any:
        memory.add_(1)
        return self.inner(x), (x, cache, None), {"twice": [x.new_zeros(2)] * 2}


class Keeping(Model):
    def forward(self, x: Any) -> Any:
        memory, cache, seen = torch.zeros(2), {"length": 3}, []
        for layer in self.layers:
            result, (given, kept, nothing), more = layer(x, memory, cache)
            assert given is x and kept is cache and nothing is None
            assert more["twice"][0] is more["twice"][1]
            x = result
            seen.append(more["twice"][0])
        assert len(set(map(id, seen))) == len(seen)
        return x, memory


def test_what_a_layer_was_given_comes_back() -> None:
    (x, memory), rows, passed = ran(Keeping([Keeps(i) for i in range(4)]), torch.zeros(3, 8))
    assert products(rows) == ["layers.0.inner"]
    assert passed.source[id(x)] == passed.source[id(memory)] == Place("layers", 3)


class Twice(Model):
    """Its last layer is called twice, where the others are called once."""

    def forward(self, x: Any) -> Any:
        return self.layers[-1](super().forward(x))


def test_a_layer_called_more_often_than_its_kind_runs() -> None:
    model = Twice([Layer(i) for i in range(4)])
    _, rows, passed = ran(model, torch.zeros(3, 8))
    assert products(rows) == ["layers.0.inner", "layers.3.inner", "layers.3.inner"]
    assert passed.stacks[0].keys == (0, 0, 0, 1)
    with (
        pytest.raises(KindsDiffer, match=r"layers\.3: .* called 1 times only") as found,
        one_of_each(model, kinds(model)),
    ):
        model(torch.zeros(3, 8))
    assert found.value.apart == {Place("layers", 3)}
    assert "forward" not in vars(model.layers[3])
