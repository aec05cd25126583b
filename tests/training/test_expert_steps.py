"""Kernels around a trainer's experts, and exchanges beside compute, as a recipe says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.loading import load_model
from graphsim.ops import ExchangeTokens, Op, Repeat
from graphsim.ops.gradients.experts import ExpertBiasGradient
from graphsim.training.recipe import Recipe, load_recipe
from graphsim.training.step import stages_of
from graphsim.training.train import setup_of

MOE = load_model({
    "name": "small-moe", "hidden_size": 256, "layers": 2, "vocab_size": 512, "norm": "rms",
    "attention": {"heads": 4}, "moe": {"experts": 8, "experts_per_token": 2, "intermediate_size": 128},
})  # fmt: skip
PLAIN = replace(load_recipe("megatron-lm"), chains=())


def priced(recipe: Recipe, precision: str = "bf16", ep: int = 4) -> list[tuple[str, Op, float, float]]:
    """Name, operation, seconds and how often, of a device's micro-batch."""
    setup = setup_of(
        MOE, "h100-sxm", batch=1, seq_len=1024, method="full", recipe=recipe, precision=precision,
        parallelism=gs.Parallelism(ep=ep),
    )  # fmt: skip
    return list(_nodes(stages_of(setup)[0].micro_batch))


def _nodes(graph: Any) -> Any:
    for name, data in graph.nodes(data=True):
        op = data["op"]
        if isinstance(op, Repeat):
            yield from ((inner, part, s, n * op.times) for inner, part, s, n in _nodes(op.body))
        else:
            yield name, op, float(data["latency_s"]), 1.0


def seconds(nodes: list[tuple[str, Op, float, float]], ending: str) -> float:
    return sum(s * n for name, _, s, n in nodes if name.endswith(ending))


def names(nodes: list[tuple[str, Op, float, float]], ending: str) -> int:
    return sum(name.endswith(ending) for name, *_ in nodes)


def test_rows_are_copied_in_both_directions_where_the_recipe_says_so() -> None:
    nodes = priced(load_recipe("megatron-lm"))
    assert names(nodes, ".GatherRows") == 2 and names(nodes, ".CombineRows") == 2
    assert not names(priced(PLAIN), "Rows")


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_inputs_are_cast_for_narrow_formats_alone(precision: str) -> None:
    assert bool(names(priced(load_recipe("megatron-lm"), precision), ".ExpertCast")) == (precision == "fp8")


def test_experts_speed_changes_their_products_and_nothing_else() -> None:
    usual, halved = priced(PLAIN), priced(replace(PLAIN, expert_speed={"hopper": 0.5}))
    changed = {name for (name, _, a, _), (_, _, b, _) in zip(usual, halved, strict=True) if b > 1.0001 * a}
    assert changed == {
        f"{name}{end}" for name in ("expert_gate_up_proj", "expert_down_proj") for end in ("", ".dgrad", ".wgrad")
    }


def test_exchanges_take_what_no_compute_hides_of_them() -> None:
    times = []
    for share in (0.0, 0.5, 1.0):
        nodes = priced(replace(PLAIN, exchange_overlap=share))
        times.append(sum(s * n for _, op, s, n in nodes if isinstance(op, ExchangeTokens)))
    assert times[0] > times[1] > times[2] > 0.0


def test_an_expert_bias_is_summed_once_for_each_row() -> None:
    one, many = (ExpertBiasGradient(rows=64.0, width=32.0, vectors=n).work() for n in (1.0, 8.0))
    assert one.vector_flops == many.vector_flops == 64.0 * 32.0
    assert many.write_bytes == 8.0 * one.write_bytes
