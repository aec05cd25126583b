"""Many training steps at once equal single ones, and the best of them is the best."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.sweeps.training import FIGURES
from graphsim.training.merges import WRITABLE

MODEL, DEVICE = "llama-3.2-1b", "h100-sxm"
TARGETS = ["q_proj", "v_proj"]
LORA = gs.LoraConfig(rank=8, target_modules=TARGETS)


def test_each_row_is_the_step_that_it_names() -> None:
    frame = gs.sweep_training(MODEL, DEVICE, batch=[1, 3], seq_len=[256, 512], rank=[4, 16], lora=LORA)
    assert len(frame) == 8
    for i in (0, 3, 6):
        row = frame.iloc[i]
        lora = gs.LoraConfig(rank=row["rank"], target_modules=TARGETS)
        alone = gs.train(MODEL, DEVICE, batch=row["batch"], seq_len=row["seq_len"], lora=lora)
        assert [row[name] for name in FIGURES] == pytest.approx([getattr(alone, name) for name in FIGURES], rel=1e-9)
        for name in ("total_bytes", "reserved_bytes", "activations_bytes"):
            assert row[name] == pytest.approx(getattr(alone.memory, name), rel=1e-9)
        assert (row["peak_moment"], row["fits"]) == (alone.memory.peak_moment, alone.memory.fits)


@pytest.mark.parametrize("recipe", ["unsloth", "megatron-bridge"])
def test_a_recipe_decides_in_a_row_what_it_decides_alone(recipe: str) -> None:
    row = gs.sweep_training(MODEL, DEVICE, recipe=recipe, seq_len=256, lora=LORA).iloc[0]
    alone = gs.train(MODEL, DEVICE, recipe=recipe, seq_len=256, lora=LORA)
    assert row["total_bytes"] == pytest.approx(alone.memory.total_bytes)
    assert row["step_s"] == pytest.approx(alone.step_s)


def test_a_model_brings_its_own_adapter() -> None:
    model = gs.load_model(MODEL)
    model.lora_config = LORA
    rows = gs.sweep_training(model, DEVICE, seq_len=[128, 256])
    alone = gs.train(model, DEVICE, seq_len=256)
    assert rows["trainable_parameters"].tolist() == [alone.trainable_parameters] * 2
    assert set(rows["rank"]) == {LORA.rank}


def test_rows_are_in_product_order_and_say_what_the_recipe_decided() -> None:
    frame = gs.sweep_training(MODEL, [DEVICE, "l4"], method=["full", "lora"], seq_len=[128, 256], lora=LORA)
    asked = [(d, m, s) for d in (DEVICE, "l4") for m in ("full", "lora") for s in (128, 256)]
    assert list(zip(frame["hardware"], frame["method"], frame["seq_len"], strict=True)) == asked
    alone = gs.train(MODEL, DEVICE, lora=LORA)
    assert set(frame["optimizer"]) == {alone.setup.optimizer.name}
    assert set(frame["recompute"]) == {alone.setup.recompute}
    assert frame["caution"].str.contains("l4 was not measured").tolist() == [False] * 4 + [True] * 4


def test_what_cannot_be_run_has_a_reason_and_spares_its_neighbours() -> None:
    frame = gs.sweep_training(MODEL, DEVICE, tp=[1, 3], batch=[1, 5], global_batch=10, dp=2, seq_len=64, lora=LORA)
    assert frame["step_s"].notna().tolist() == [True, True, False, False]
    assert frame["accumulate"].tolist() == [5, 1, 5, 1]
    assert frame["reason"].iloc[2].startswith("parallelism.tp = 3 does not divide")
    uneven = gs.sweep_training(MODEL, DEVICE, batch=[1, 3, 2], global_batch=4, seq_len=64, lora=LORA)
    assert uneven["reason"].str.contains("accumulate").tolist() == [False, True, False]
    assert uneven["step_s"].notna().tolist() == [True, False, True]


def test_what_does_not_fit_has_numbers_and_a_reason() -> None:
    frame = gs.sweep_training(MODEL, "l4", seq_len=[128, 65536], lora=LORA)
    assert frame["fits"].tolist() == [True, False]
    assert frame["step_s"].notna().all()
    assert frame["reason"].tolist() == ["", "does not fit in the memory of one device"]


def test_an_executor_gives_the_same_rows_and_progress_reaches_the_end() -> None:
    told: list[tuple[int, int]] = []
    asked: dict[str, Any] = {"method": ["lora", "qlora"], "seq_len": [64, 128], "lora": LORA}
    here = gs.sweep_training(MODEL, DEVICE, progress=lambda done, rows: told.append((done, rows)), **asked)
    with ThreadPoolExecutor(1) as executor:
        there = gs.sweep_training(MODEL, DEVICE, executor=executor, **asked)
    assert there.equals(here)
    assert told[-1] == (4, 4)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"batches": 2}, "has no choice 'batches'; did you mean 'batch'"),
        ({"batch": []}, "batch is empty"),
        ({"batch": 1.5}, "batch = 1.5 is not allowed"),
        ({"method": "lorra"}, "method = 'lorra' is not known; did you mean 'lora'"),
        ({"recipe": ["peft", "pft"]}, "pft"),
        ({"recompute": "some"}, "recompute = 'some' is not known"),
        ({"accumulate": 2, "global_batch": 4}, "leave one out"),
        ({"dp": "two"}, "dp: 'two' is not a whole number or a range"),
    ],
)
def test_mistakes_are_told_in_a_sentence(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        gs.sweep_training(MODEL, DEVICE, **choices)


WAYS: dict[str, Any] = {"method": ["full", "lora"], "batch": [1, 2], "global_batch": 4, "seq_len": 256, "lora": LORA}


def test_the_best_is_the_first_of_those_that_fit() -> None:
    prices = {DEVICE: 2.0, "l40s": 1.0}
    every = gs.sweep_training(MODEL, [DEVICE, "l40s"], **WAYS)
    found = gs.best_training(MODEL, [DEVICE, "l40s"], "cost", tokens=1e9, price_per_hour=prices, **WAYS)
    assert len(found) == every["fits"].sum()
    assert found["cost"].is_monotonic_increasing
    cost = every["hardware"].map(prices).astype(float) / 3600 / every["tokens_per_s_per_gpu"] * 1e9
    assert found["cost"].iloc[0] == pytest.approx(cost.min())
    assert np.allclose(found["hours"], 1e9 / found["tokens_per_s"] / 3600)


def test_limits_are_kept_and_what_breaks_them_all_is_said() -> None:
    found = gs.best_training(MODEL, DEVICE, "tokens_per_s", memory_bytes=8 * 2.0**30, **WAYS)
    assert 0 < len(found) < 4 and (found["reserved_bytes"] <= 8 * 2.0**30).all()
    with pytest.raises(
        gs.InfeasibleError, match=r"memory_bytes <= 953.7 MiB excludes 4; nearest is llama-3.2-1b on h100-sx"
    ):
        gs.best_training(MODEL, DEVICE, memory_bytes=1e9, **WAYS)
    with pytest.raises(gs.InfeasibleError, match="none of 1 scenarios can be run; most often: parallelism.tp = 3"):
        gs.best_training(MODEL, DEVICE, tp=3, lora=LORA)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"goal": "fast"}, "goal = 'fast' is not known"),
        ({"goal": "cost"}, "cost needs tokens"),
        ({"goal": "cost_per_token"}, "cost_per_token needs price_per_hour"),
        ({"hours": 3}, "hours needs tokens"),
        ({"devices": -1}, "devices = -1 is not allowed"),
        ({"tokens": "many"}, "tokens = 'many' is not allowed"),
    ],
)
def test_goals_need_what_they_are_made_of(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        gs.best_training(MODEL, DEVICE, **asked)


def test_formats_that_merge_are_known_formats() -> None:
    from graphsim.ops.formats import FORMATS

    assert set(WRITABLE) - {"", "fp4", "llm_int8"} <= set(FORMATS)


def test_deployments_are_trained_as_each_of_them_says() -> None:
    lora = gs.LoraConfig(rank=4, target_modules=("q_proj",))
    deployments = [
        gs.Deployment("llama-3.2-1b", "h100-sxm", lora=lora, parallelism=gs.Parallelism(dp=2)),
        gs.Deployment("qwen3-0.6b", "a100-sxm-80gb"),
    ]
    table = gs.sweep_training(deployments, batch=[1, 2], recompute=["none", "full"])
    assert list(table["model"]) == ["llama-3.2-1b"] * 4 + ["qwen3-0.6b"] * 4
    assert list(table["devices"]) == [2.0] * 4 + [1.0] * 4
    for row, deployment in ((1, deployments[0]), (6, deployments[1])):
        asked = table.iloc[row]
        one = gs.train(deployment, batch=float(asked["batch"]), recompute=str(asked["recompute"]))
        assert asked["step_s"] == pytest.approx(float(one.step_s), rel=1e-9)
        assert asked["trainable_parameters"] == one.trainable_parameters


@pytest.mark.parametrize("said", [{"hardware": "h100-sxm"}, {"tp": 2}, {"rank": [4, 8]}, {"precision": "bf16"}])
def test_what_a_deployment_says_is_no_choice(said: dict[str, Any]) -> None:
    with pytest.raises(gs.ConfigError, match="given together with deployments"):
        gs.sweep_training([gs.Deployment("llama-3.2-1b", "h100-sxm")], **said)


def test_a_name_beside_deployments_is_refused() -> None:
    with pytest.raises(gs.ConfigError, match="is given together with deployments"):
        gs.sweep_training([gs.Deployment("llama-3.2-1b", "h100-sxm"), "llama-3.1-8b"])
