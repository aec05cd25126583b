"""Fits of several devices together: means of times, per kernel, that keep what every reference device keeps."""

import numpy as np
import pytest

from graphsim.cost.families import attention, gemm
from graphsim.cost.families.attention_work import AttentionShape
from graphsim.cost.families.blend import BORROWED_SURFACE, Blend, blended, mean_constants
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.parameters.basis import basis
from graphsim.cost.parameters.store import calibration_path, load_calibration
from graphsim.cost.surfaces.surface import Surface
from graphsim.cost.surfaces.tables import Term
from graphsim.hardware import load_hardware

ONE = {"bfloat16": {"constants": {"launch_clocks": 4000.0, "dram": 1.0}}}
OTHER = {"bfloat16": {"constants": {"launch_clocks": 1000.0, "dram": 4.0}}, "fp8": {"constants": {"dram": 3.0}}}


def test_constants_are_geometric_means_over_those_who_have_them():
    found = mean_constants([ONE, OTHER])
    assert found["bfloat16"]["constants"] == pytest.approx({"launch_clocks": 2000.0, "dram": 2.0})
    assert found["fp8"]["constants"] == pytest.approx({"dram": 3.0})


def test_surfaces_are_lent_in_part_and_one_alone_not_at_all():
    entries = []
    for knots, values in (([0.0, 1.0], [0.2, -0.4]), ([0.0, 0.5, 2.0], [0.0, 0.3, 0.1])):
        term = Term(axes=("m",), knots=(np.array(knots),), values=np.array(values))
        entries.append({"constants": {"dram": 1.0}, "surface": Surface(terms=(term,))})
    at = {"m": np.linspace(-1.0, 3.0, 9)}
    mean = 0.5 * (entries[0]["surface"](at) + entries[1]["surface"](at))
    assert blended(entries)["surface"](at) == pytest.approx(BORROWED_SURFACE * mean, rel=1e-12)
    assert "surface" not in blended(entries[:1])


def test_a_further_fit_is_lent_where_all_lenders_have_one():
    one, other = ({"constants": {"dram": 1.0}, "single": {"constants": {"walk": walk}}} for walk in (1.0, 2.0))
    assert blended([one, other])["single"] == {"each": [{"walk": 1.0}, {"walk": 2.0}]}
    assert "single" not in blended([one, {"constants": {"dram": 1.0}}])


def test_only_lenders_with_the_kernel_serve_it_and_all_if_none_has():
    blend = Blend([ONE, OTHER])
    assert len(blend.serving(("bfloat16",))) == 2 and len(blend.serving(("int8",))) == 2
    assert blend.serving(("fp8",)) == [OTHER]


def test_a_product_on_a_card_nobody_measured_is_the_mean_of_its_lenders():
    device = load_hardware("l40s")
    found = basis(device, "gemm", own=False)
    assert isinstance(found.parameters, Blend) and "rtx-pro-6000" in found.origin and "a100" in found.origin
    shape = GemmShape(m=np.array([1.0, 100.0, 5000.0]), n=4096.0, k=4096.0)
    times = []
    for member in found.parameters.members:
        bare = {"bfloat16": {"constants": member["bfloat16"]["constants"]}}
        whole, skeleton = (gemm.latency_s(one, device, shape) for one in (member, bare))
        times.append(skeleton ** (1.0 - BORROWED_SURFACE) * whole**BORROWED_SURFACE)
    assert gemm.latency_s(found.parameters, device, shape) == pytest.approx(np.sqrt(times[0] * times[1]), rel=1e-12)


def test_no_work_takes_no_time_in_a_blend():
    device = load_hardware("l40s")
    parameters = basis(device, "gemm", own=False).parameters
    assert gemm.latency_s(parameters, device, GemmShape(m=0.0, n=64.0, k=64.0)) == 0


def test_a_kernel_may_have_lenders_of_its_own():
    device = load_hardware("rtx-pro-6000")
    found = basis(device, "attention", own=False).parameters
    shapes = {
        phase: AttentionShape(batch=4.0, seq_len=queries, kv_len=1024.0, heads=32.0, kv_heads=8.0, head_dim=128.0,
                              phase=phase)
        for phase, queries in (("prefill", 1024.0), ("decode", 1.0))
    }  # fmt: skip
    assert len(found.serving(("prefill", "bfloat16"))) == 1 < len(found.serving(("decode", "bfloat16")))
    a100 = load_calibration(calibration_path(load_hardware("a100-sxm-80gb")))
    fitted = {"prefill": {"bfloat16": {"constants": a100.families["attention"]["prefill"]["bfloat16"]["constants"]}}}
    alone = attention.latency_s(fitted, device, shapes["prefill"])
    assert attention.latency_s(found, device, shapes["prefill"]) == pytest.approx(alone, rel=1e-12)
    assert attention.latency_s(found, device, shapes["decode"]) > 0


def test_a_measured_device_of_the_same_generation_lends_alone_with_its_surfaces():
    found = basis(load_hardware("h200-sxm"), "gemm", own=False)
    assert found.origin == "scaled from h100-sxm (hopper)" and not isinstance(found.parameters, Blend)
