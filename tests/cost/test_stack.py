"""Prices of stacks that were only served: laws of the form, who takes whose constants, and what an estimate says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphsim as gs
from graphsim.cost.choose import caution, choose_cost
from graphsim.cost.parameters.engines import KernelTable
from graphsim.cost.roofline import roofline
from graphsim.cost.stack import Stack, read_stacks, stack_of
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from graphsim.ops import ExpertGemm, Gemm, OpType
from graphsim.ops.formats import FORMATS

MI300X = load_hardware("mi300x")


def test_no_price_is_below_the_datasheet_and_each_grows_with_its_work() -> None:
    price, _ = choose_cost(None, MI300X)
    assert isinstance(price, Stack)
    rows = 2.0 ** np.arange(0, 15)
    product = Gemm(m=rows, n=4096.0, k=4096.0)
    seconds = price(product, MI300X).latency_s
    assert np.all(np.diff(seconds) >= 0) and np.all(seconds > roofline(product, MI300X).latency_s)
    assert np.all(price(Gemm(m=0.0 * rows, n=4096.0, k=4096.0), MI300X).launch_s <= price.kernel_s)


@pytest.mark.parametrize(("device", "whose"), [("mi325x", "mi300x"), ("mi350x", "mi355x"), ("mi355x", "mi355x")])
def test_a_generation_shares_its_stack(device: str, whose: str) -> None:
    found = stack_of(load_hardware(device))
    assert found is not None and f"served rows of {whose}" in found[1]
    assert found[0] == stack_of(load_hardware(whose))[0]  # type: ignore[index]


def test_engines_differ_and_others_take_the_base() -> None:
    device = load_hardware("mi355x")
    base, sglang = (choose_cost(None, device, KernelTable(engine=name))[0] for name in ("", "sglang"))
    assert base != sglang
    assert choose_cost(None, device, KernelTable(engine="trtllm"))[0] == base
    assert stack_of(load_hardware("h100-sxm")) is None


@pytest.mark.parametrize("device", ["mi300x", "mi355x"])
def test_large_gemms_of_dense_layers_reach_their_own_share_and_nothing_else_does(device: str) -> None:
    """Narrow formats are faster in proportion to their peaks; experts and adapters keep the served rows' share."""
    hardware = load_hardware(device)
    found = stack_of(hardware)
    assert found is not None
    price, shares = found[0], dict(found[0].gemms)
    bare = replace(price, gemms=())
    for name in ("bf16", "fp8", "fp8_row", "fp8_block", "mxfp4", *(["mxfp4_w4a4"] if device == "mi355x" else [])):
        number_format = FORMATS[name]
        rows = 2.0 ** np.arange(0, 16)
        product = Gemm(m=rows, n=8192.0, k=8192.0, weights=number_format)
        seconds, without = price(product, hardware).latency_s, bare(product, hardware).latency_s
        assert np.all(seconds <= without)
        if number_format.gemm not in shares:
            assert name in ("fp8_block", "mxfp4") and np.all(seconds == without)
            continue
        at_peak_s = float(np.max(product.work().flops)) / hardware.flops_per_s[number_format.compute]
        least = 1.0 / max(shares[number_format.gemm], price.compute if name == "bf16" else 0.0)
        assert np.max(seconds) == pytest.approx(at_peak_s * least, rel=0.02), name
    experts = ExpertGemm(
        m=4096.0, n=4096.0, k=4096.0, weights=FORMATS["fp8"], tokens=4096.0, experts=8.0, of=8, chosen=2
    )
    assert price(experts, hardware).latency_s == bare(experts, hardware).latency_s > 0


def test_an_estimate_says_what_it_rests_on() -> None:
    found = gs.simulate("llama-3.1-8b", "mi300x", batch=8)
    assert found.cost_model.startswith("fitted on served rows of mi300x")
    assert "was not measured" in found.caution and found.caution == caution(None, MI300X)
    assert gs.simulate("llama-3.1-8b", "mi300x", cost="roofline").tpot_s < found.tpot_s


def test_a_sweep_gives_what_single_estimates_give() -> None:
    frame = gs.sweep("llama-3.1-8b", "mi355x", batch=[1, 16], tp=[1, 2], output_tokens=[64])
    for row in frame.to_dict("records"):
        degrees = gs.Parallelism(tp=int(row["tp"]))
        one = gs.simulate("llama-3.1-8b", "mi355x", batch=int(row["batch"]), output_tokens=64, parallelism=degrees)
        assert row["tpot_s"] == pytest.approx(one.tpot_s, rel=1e-3)
    assert np.all(np.diff(frame.groupby("batch")["latency_s"].max()) > 0)


def test_what_engines_fuse_starts_no_kernel() -> None:
    graph = gs.annotate(gs.build_graph("mixtral-8x7b", "decode", batch=4), MI300X)
    residuals = [data for _, data in graph.nodes(data=True) if data["op"].op_type is OpType.ADD]
    assert all(data["cost"].launch_s == 0.0 for data in residuals)


def test_a_wrong_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    good = {"memory": 0.8, "compute": 0.2, "kernel_s": 5e-6}
    path.write_text(json.dumps({"devices": {"mi300x": {"sglang": good}}}))
    with pytest.raises(ConfigError, match="base"):
        read_stacks(path)
    path.write_text(json.dumps({"devices": {"mi300x": {"base": good | {"memory": 3.0}}}}))
    with pytest.raises(ConfigError, match=r"memory.*3"):
        read_stacks(path)
    path.write_text(json.dumps({"gemms": {"mi300x": {"fp8": 1.5}}, "devices": {"mi300x": {"base": good}}}))
    with pytest.raises(ConfigError, match=r"fp8.*1\.5"):
        read_stacks(path)
