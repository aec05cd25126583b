"""A block of experts in a graph takes as long as the measured fused block of its shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.cost.choose import choose_cost
from graphsim.display.nodes import entries
from graphsim.ops import ExpertActivation, ExpertGemm, Permute, Route, Sharding
from graphsim.ops.lora import LoraAdd, LoraGemm

BLOCK = (Route, Permute, ExpertActivation, ExpertGemm)


def block_s(graph) -> float:
    return sum(float(entry.data["latency_s"]) for entry in entries(graph) if isinstance(entry.op, BLOCK))


def row(**shape) -> pd.DataFrame:
    return pd.DataFrame([{"op": "moe", "distribution": "uniform", "tp": 1, "ep": 1, **shape}])


@pytest.mark.parametrize("tokens", [1, 64, 4096])
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp8", "fp8"), ("int4", "int4_wo")])
@pytest.mark.parametrize(("tp", "ep"), [(1, 1), (4, 1), (4, 4), (1, 8)])
def test_a_block_costs_what_the_kernels_row_costs(tokens, precision, dtype, tp, ep):
    replicas = max(1, ep // tp)
    graph = gs.build_graph(
        "qwen3-30b-a3b", "decode", batch=tokens * replicas, input_tokens=128,
        parallelism=gs.Parallelism(tp=tp, ep=ep), precision=precision,
    )  # fmt: skip
    device = gs.load_hardware("h100-sxm")
    shape = {"m": tokens * replicas, "hidden": 2048, "inter": 768, "topk": 8, "experts": 128, "dtype": dtype}
    expected = gs.predict_kernels(row(**shape).assign(tp=max(1, tp // ep), ep=ep), device)
    assert block_s(gs.annotate(graph, device)) * 1e6 == pytest.approx(float(expected.iloc[0]), rel=1e-9)


def test_plain_experts_cost_as_gated_ones_of_as_many_weights():
    shape = {"m": 64.0, "tokens": 32.0, "experts": 8.0, "of": 8, "chosen": 2}
    device = gs.load_hardware("h100-sxm")
    price = choose_cost(None, device)[0]

    def total(width, gated):
        up = ExpertGemm(n=width * (2 if gated else 1), k=1024.0, split=Sharding.COLUMN, gated=gated, **shape)
        down = ExpertGemm(n=1024.0, k=width, split=Sharding.ROW, gated=gated, **shape)
        return price(up, device).latency_s + price(down, device).latency_s

    assert total(3072.0, False) == pytest.approx(total(2048.0, True), rel=1e-9)


def test_popular_experts_are_fewer_and_so_faster():
    device = gs.load_hardware("h100-sxm")
    price = choose_cost(None, device)[0]
    even = ExpertGemm(n=1536.0, k=2048.0, split=Sharding.COLUMN, m=64.0, tokens=8.0, experts=128.0, of=128, chosen=8)
    assert price(replace(even, skew=1.0), device).latency_s < price(even, device).latency_s


def test_no_tokens_take_no_time_and_arrays_equal_scalars():
    device = gs.load_hardware("h100-sxm")
    price = choose_cost(None, device)[0]
    tokens = np.array([0.0, 1.0, 700.0])

    def op(count):
        return ExpertGemm(n=1536.0, k=2048.0, split=Sharding.COLUMN, m=8 * count, tokens=count, experts=128.0, of=128,
                          chosen=8)  # fmt: skip

    many = price(op(tokens), device).latency_s
    assert many[0] == 0
    assert many == pytest.approx([price(op(float(count)), device).latency_s for count in tokens], rel=1e-12)


def test_an_adapters_nodes_on_experts_keep_prices_of_their_own():
    lora = gs.LoraConfig(rank=16, target_modules="all-linear")
    found = gs.simulate("qwen3-30b-a3b", "h100-sxm", lora=lora, engine="reference")
    own = [entry for entry in entries(found.decode.graph) if isinstance(entry.op, LoraGemm | LoraAdd)]
    assert own and all(entry.data["latency_s"] > 0 for entry in own)


def test_a_device_without_expert_measurements_nearby_still_prices_them():
    assert gs.simulate("qwen3-30b-a3b", "arc-pro-b60", engine="reference").tpot_s > 0
