"""The host and prices of an engine's profile: read, inherited, checked, and asked for kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphsim as gs
from graphsim.lora.host import EngineHost
from graphsim.lora.profile import load_profile

SERVED = ("vllm", "sglang", "trtllm")


@pytest.mark.parametrize(
    ("alias", "name"), [("vllm-2025-05", "vllm-0.8"), ("tensorrt-llm", "trtllm"), ("TensorRT-LLM", "trtllm")]
)
def test_an_engine_is_found_by_its_other_names_too(alias: str, name: str) -> None:
    assert load_profile(alias) == load_profile(name)
    assert load_profile(alias).name == name and alias not in gs.list_engines()


@pytest.mark.parametrize("name", SERVED)
def test_an_engine_that_serves_has_a_host_and_a_table(name: str) -> None:
    profile = load_profile(name)
    assert profile.host.is_known
    assert profile.prices.table == {"vllm": "base"}.get(name, name)


@pytest.mark.parametrize("name", ["reference", "peft"])
def test_an_engine_whose_host_nobody_looked_at_has_none(name: str) -> None:
    assert load_profile(name).host == EngineHost()
    assert load_profile(name).prices.table == "base"


def test_joint_time_lies_between_the_longer_of_both_and_their_sum() -> None:
    host, kernels = np.geomspace(1e-4, 1.0, 20), 0.01
    for power in (1.0, 1.4, 4.0):
        joint = EngineHost(overlap_power=power).joint_s(kernels, host)
        assert np.all(joint <= kernels + host + 1e-15)
        assert np.all(joint >= np.maximum(kernels, host) - 1e-15)
        assert np.all(np.diff(joint) > 0)
    assert EngineHost(overlap_power=1.4).joint_s(kernels, 0.0) == pytest.approx(kernels)


def test_the_more_special_order_counts_first() -> None:
    prices = load_profile(
        {"base": "vllm", "prices": {"table": "sglang", "kernels": {"moe": {
            "hopper": ["a"], "blackwell": {"any": ["b", "a"], "nvfp4": ["c"]}, "any": {"int4_wo": ["d"], "any": ["e"]},
        }}}}
    ).prices  # fmt: skip
    assert prices.order("moe", "hopper") == ("a",)
    assert prices.order("moe", "blackwell", "nvfp4") == ("c",)
    assert prices.order("moe", "blackwell", "bfloat16") == ("b", "a")
    assert prices.order("moe", "hopper", "int4_wo") == ("d",), "a format of its own on every device"
    assert prices.order("moe", "ada") == ("e",)
    assert prices.order("attention", "hopper") == (), "nothing said: as the table has them"
    assert prices.formats("moe", "blackwell") == ("nvfp4", "int4_wo")


def test_a_family_takes_the_place_of_the_base_s(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: sglang\nprices: {kernels: {attention: {any: [triton]}}}\nhost: {launch_s: 10 us}\n")
    mine, base = load_profile(path), load_profile("sglang")
    assert mine.prices.order("attention", "hopper") == ("triton",)
    assert mine.prices.order("moe", "hopper") == base.prices.order("moe", "hopper")
    assert mine.prices.table == "sglang"
    assert mine.host.launch_s == pytest.approx(1e-5) and mine.host.expert_layer_s == base.host.expert_layer_s


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("host: {launch_s: -1 us}", "host.launch_s"),
        ("host: {launches: 3}", "host.launches is not a known key"),
        ("host: {overlap_power: 0.5}", "host.overlap_power"),
        ("prices: {table: mine}", "prices.table"),
        ("prices: {kernels: {moe: {any: [1]}}}", "prices.kernels.moe.any"),
        ("prices: {kernels: {moe: [a]}}", "prices.kernels.moe"),
    ],
)
def test_a_wrong_value_is_told_by_file_and_field(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: vllm\n{text}\n")
    with pytest.raises(gs.ConfigError, match=told):
        load_profile(path)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_prices_of_an_engine_are_remembered(engine: str) -> None:
    """By the objects that they rest on: a deployment asked twice has the very same prices, and its graphs' formulas."""
    one, other = (gs.Deployment("qwen3-0.6b", "h100-sxm", engine=engine) for _ in range(2))
    assert one.price is other.price
