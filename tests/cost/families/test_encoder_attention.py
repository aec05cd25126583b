"""Attention in both directions: limits, order, and what fits are worth on head layouts and devices left out."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.cost.families.blend import Blend
from graphsim.cost.families.encoder_attention import EncoderShape, latency_s, roofline_s
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from tests.cost.families.fitted import fitted, left_out_error, lent_error

ROWS = 2.0 ** np.arange(0.0, 17.0)


def shape(**given):
    sizes = {"batch": 8.0, "seq_len": 1024.0, "kv_len": 1024.0, "heads": 16.0, "head_dim": 72.0} | given
    return EncoderShape(**sizes)


@pytest.mark.parametrize("device", ["h100-sxm", "a100-sxm-80gb", "l4", "mi300x"])
def test_no_kernel_is_faster_than_the_roofline_and_nothing_takes_no_time(device):
    hardware = load_hardware(device)
    every = shape(seq_len=ROWS, kv_len=ROWS)
    assert (latency_s({}, hardware, every) >= roofline_s(hardware, every)).all()
    assert float(latency_s({}, hardware, shape(batch=0.0))) == 0.0 == float(latency_s({}, hardware, shape(kv_len=0.0)))


@pytest.mark.slow
def test_with_long_pieces_the_time_goes_with_the_square_of_the_rows():
    parameters, hardware = fitted("encoder_attention", "h100_sxm", "vllm")
    one, two = (float(latency_s(parameters, hardware, shape(seq_len=n, kv_len=n))) for n in (65536.0, 131072.0))
    assert two / one == pytest.approx(4.0, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("device", "framework"), [("h100_sxm", "vllm"), ("gb200", "sglang"), ("l40s", "vllm")])
def test_four_times_the_rows_pieces_or_heads_are_no_faster(device, framework):
    """As attention's own: measured times jitter by as much where a launch is all there is."""
    parameters, hardware = fitted("encoder_attention", device, framework)
    for name in ("rows", "batch", "heads"):
        sizes = 4.0 ** np.arange(0.0, 8.0)
        grown = {"rows": {"seq_len": sizes, "kv_len": sizes}, "batch": {"batch": sizes}, "heads": {"heads": sizes}}
        for head_dim in (64.0, 80.0):
            for rows in (26.0, 577.0, 4096.0):
                given = {"seq_len": rows, "kv_len": rows, "head_dim": head_dim} | grown[name]
                time = latency_s(parameters, hardware, shape(**given))
                assert (time[1:] >= 0.85 * time[:-1]).all(), (name, head_dim, rows)


@pytest.mark.slow
def test_a_device_that_nobody_measured_lies_between_what_two_lend():
    (hopper, _), (blackwell, _) = (fitted("encoder_attention", device, "vllm") for device in ("h100_sxm", "b200_sxm"))
    hardware = load_hardware("a100-sxm-80gb")
    time = float(latency_s(Blend([hopper, blackwell]), hardware, shape()))
    each = [float(latency_s({"bfloat16": {"constants": one["bfloat16"]["constants"]}}, hardware, shape()))
            for one in (hopper, blackwell)]  # fmt: skip
    assert 0.7 * min(each) < time < 1.4 * max(each)


def test_a_dtype_that_there_is_not_is_refused_by_name():
    with pytest.raises(ConfigError, match="fp9"):
        latency_s({}, load_hardware("h100-sxm"), shape(dtype="fp9"))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["h100_sxm", "h200_sxm", "b200_sxm", "gb200", "l40s", "rtx_pro_6000_server"])
@pytest.mark.parametrize("framework", ["vllm", "sglang", "trtllm"])
def test_head_layouts_left_out_err_by_eight_percent_at_most(device, framework):
    assert left_out_error("encoder_attention", device, framework) < 0.08


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(("device", "sibling"), [("h100_sxm", "h200_sxm"), ("h200_sxm", "h100_sxm"),
                                                 ("gb200", "b200_sxm"), ("b200_sxm", "gb200")])  # fmt: skip
def test_a_device_left_out_errs_by_fifteen_percent_at_most(device, sibling, framework):
    assert lent_error("encoder_attention", device, sibling, framework) < 0.15
