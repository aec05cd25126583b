"""Merging is memory traffic, loading is tensors or bytes, and neither knows of tokens."""

from __future__ import annotations

import numpy as np
import pytest

import graphsim as gs
from graphsim.analysis.lifecycle import lifecycle

ALL = gs.LoraConfig(rank=16, target_modules="all-linear")
LINEAR_PARAMETERS = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
BANDWIDTH = gs.load_hardware("a100-sxm-80gb").memory_bytes_per_s


def test_a_fused_merge_moves_each_weight_twice_and_the_factors_once() -> None:
    found = lifecycle("llama-2-7b", "a100-sxm-80gb", ALL, cost="roofline", engine="reference")
    factors = 2.0 * gs.lora_parameters("llama-2-7b", ALL)
    launches = 7 * 32 * gs.load_hardware("a100-sxm-80gb").launch_s
    moved = 2 * 2 * LINEAR_PARAMETERS + factors
    assert found.merge_s == pytest.approx(moved / BANDWIDTH + launches)


def test_peft_moves_the_product_four_times_more_and_keeps_a_temporary() -> None:
    fused = lifecycle("llama-2-7b", "a100-sxm-80gb", ALL, cost="roofline", engine="reference")
    peft = lifecycle("llama-2-7b", "a100-sxm-80gb", ALL, cost="roofline", engine="peft")
    assert peft.merge_s - fused.merge_s == pytest.approx(4 * 2 * LINEAR_PARAMETERS / BANDWIDTH)
    assert peft.temporary_bytes == 2 * 4096 * 11008
    assert fused.temporary_bytes == 0


def test_a_switch_in_one_pass_costs_less_than_taking_out_and_putting_in() -> None:
    found = lifecycle("llama-2-7b", "a100-sxm-80gb", ALL, engine="reference")
    assert found.merge_s < found.switch_s < 1.1 * found.merge_s
    assert found.copy_bytes == 2 * LINEAR_PARAMETERS


def test_a_quantised_base_is_widened_and_narrowed_again() -> None:
    wide = lifecycle("llama-2-7b", "a100-sxm-80gb", ALL, cost="roofline", engine="reference")
    narrow = lifecycle("llama-2-7b", "a100-sxm-80gb", ALL, cost="roofline", precision="nf4", engine="reference")
    assert narrow.merge_s > wide.merge_s
    moved = (2 * 0.5625 + 4 * 2.0) * LINEAR_PARAMETERS
    assert narrow.merge_s == pytest.approx(moved / BANDWIDTH, rel=0.05)


def test_loading_is_bound_by_tensors_until_the_bytes_take_longer() -> None:
    ranks = np.array([8.0, 64.0, 512.0])
    lora = gs.LoraConfig(rank=ranks, target_modules="all-linear")
    found = lifecycle("llama-3.1-8b", "h100-64gb", lora, engine="vllm")
    assert found.tensors == 2 * 7 * 32
    assert found.load_s[0] == pytest.approx(448 * 14.3e-6, rel=0.01)
    link = gs.load_hardware("h100-64gb").host_link.bytes_per_s
    assert found.load_s[2] == pytest.approx(found.adapter_bytes[2] / link, rel=0.01)


def test_requests_wait_for_loads_within_a_step_and_not_for_those_beside_it() -> None:
    asked_for = {"base": "sglang", "load_overlapped": True}
    within, beside = (lifecycle("llama-3.1-8b", "h100-sxm", ALL, engine=engine) for engine in ("vllm", asked_for))
    assert within.stall_s == within.load_s > 0
    assert within.disk_stall_s == within.load_s + within.warm_disk_s
    assert beside.load_s > 0 and beside.stall_s == beside.disk_stall_s == 0
    assert lifecycle("llama-3.1-8b", "h100-sxm", ALL, engine="sglang").stall_s > 0, "as started without options"


def test_merging_under_tensor_parallel_takes_each_device_its_share() -> None:
    one = lifecycle("llama-2-7b", "a100-sxm-80gb", ALL, cost="roofline", engine="reference")
    four = lifecycle(
        "llama-2-7b", "a100-sxm-80gb", ALL, cost="roofline", parallelism=gs.Parallelism(tp=4), engine="reference"
    )
    assert four.copy_bytes == one.copy_bytes / 4
    assert four.merge_s < 0.35 * one.merge_s


def test_what_an_engine_only_merges_has_a_lifecycle_on_it() -> None:
    merged = gs.LoraConfig(rank=16, variant="dora", strategy="merge")
    assert lifecycle("llama-3.1-8b", "h100-sxm", merged, engine="vllm").merge_s > 0.0
    with pytest.raises(gs.InfeasibleError, match="does not yet support DoRA"):
        lifecycle("llama-3.1-8b", "h100-sxm", gs.LoraConfig(rank=16, variant="dora"), engine="vllm")
