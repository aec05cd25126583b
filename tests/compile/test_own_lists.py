"""Lists of different scenarios, grids and single scenarios give the same where they meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile import evaluated

COUNT = 60
DRAW = np.random.default_rng(1)
LISTS: dict[str, Any] = {
    "batch": DRAW.integers(1, 129, COUNT), "input_tokens": DRAW.integers(1, 9000, COUNT),
    "output_tokens": DRAW.integers(1, 3000, COUNT),
}  # fmt: skip
RESULTS = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s")
MODELS = ["llama-3.1-8b", pytest.param("gemma-2-9b", marks=pytest.mark.slow),
          pytest.param("qwen3-30b-a3b", marks=pytest.mark.slow)]  # fmt: skip


def deployment(model: str, cost: str, rank: Any = 16) -> gs.Deployment:
    return gs.Deployment(model, "h100-sxm", lora=gs.LoraConfig(rank=rank), cost=cost)


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("model", MODELS)
def test_a_list_gives_what_each_of_its_scenarios_gives(model: str, cost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluated, "_BLOCK", 16)
    ranks = DRAW.choice([1.0, 8.0, 64.0], COUNT)
    many = gs.simulate(deployment(model, cost, ranks), **LISTS)
    for at in range(0, COUNT, 7):
        alone = gs.simulate(deployment(model, cost, ranks[at]), **{name: x[at] for name, x in LISTS.items()})
        for name in RESULTS:
            assert getattr(many, name)[at] == pytest.approx(getattr(alone, name), rel=1e-12), (at, name)


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("adapted", [True, False])
def test_zipped_scenarios_are_those_of_the_product(cost: str, adapted: bool) -> None:
    choices: dict[str, Any] = {"batch": [1, 7, 64], "input_tokens": [16, 300, 5000], "output_tokens": [2, 90, 800]}
    choices |= {"rank": [0, 8, 64], "active_adapters": [1, 4]} if adapted else {"dp": [1, 3]}
    kept = {"cost": cost, "targets": ["attn", "ffn"]} if adapted else {"cost": cost}
    product = gs.sweep("llama-3.1-8b", "h100-sxm", **kept, **choices)
    assert len(product) == np.prod([len(values) for values in choices.values()])
    rows = {name: product[name].astype(int).tolist() for name in choices}
    zipped = gs.sweep("llama-3.1-8b", "h100-sxm", **kept, **rows, zipped=[tuple(choices)])
    assert (zipped["reason"] == product["reason"]).all() and (zipped["fits"] == product["fits"]).all()
    for name in (*RESULTS, "one_time_s", "memory_bytes", "energy_per_token_j"):
        np.testing.assert_allclose(zipped[name], product[name], rtol=1e-12)


def test_pieces_of_a_list_are_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gs.simulate(deployment("llama-3.1-8b", "calibrated"), **LISTS)
    monkeypatch.setattr(evaluated, "_BLOCK", 7)
    pieces = gs.simulate(deployment("llama-3.1-8b", "calibrated"), **LISTS)
    for name in RESULTS:
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-13)
