"""Quantisation of activations: limits, order, and what fits are worth on widths and devices left out."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.cost.families.quantize import QuantizeShape, latency_s, roofline_s
from graphsim.hardware import load_hardware
from tests.cost.families.fitted import DEVICES, fitted, left_out_error, lent_error

ROWS, WIDTHS = 2.0 ** np.arange(0.0, 19.0), 2.0 ** np.arange(5.0, 17.0)


@pytest.mark.parametrize(("device", "framework"), [("h100_sxm", "vllm"), ("l40s", "sglang"), ("gb200", "trtllm")])
def test_more_rows_and_wider_ones_take_longer_and_long_ones_the_memorys_time(device, framework):
    parameters, hardware = fitted("quantize", device, framework)
    time = latency_s(parameters, hardware, QuantizeShape(m=ROWS[:, None], k=WIDTHS))
    for along in (0, 1):
        assert (time >= 0.93 * np.maximum.accumulate(time, axis=along)).all()
    large = QuantizeShape(m=2.0**20, k=16384.0)
    assert float(latency_s(parameters, hardware, large)) >= float(roofline_s(hardware, large))
    assert float(latency_s(parameters, hardware, QuantizeShape(m=0.0, k=4096.0))) == 0.0


def test_a_scale_that_is_given_costs_little_more_than_the_traffic():
    parameters, hardware = fitted("quantize", "h100_sxm", "vllm")
    large = QuantizeShape(m=32768.0, k=16384.0)
    assert float(latency_s(parameters, hardware, large)) < 1.3 * float(roofline_s(hardware, large))


def test_without_any_fit_there_is_a_price():
    assert float(latency_s({}, load_hardware("mi300x"), QuantizeShape(m=1.0, k=1.0))) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("framework", ["vllm", "sglang", "trtllm"])
def test_widths_left_out_err_by_ten_percent_at_most(device, framework):
    assert left_out_error("quantize", device, framework) < 0.10


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(("device", "sibling"), [("h100_sxm", "h200_sxm"), ("h200_sxm", "h100_sxm"),
                                                 ("gb200", "b200_sxm"), ("b200_sxm", "gb200")])  # fmt: skip
def test_a_device_left_out_errs_by_eighteen_percent_at_most(device, sibling, framework):
    assert lent_error("quantize", device, sibling, framework) < 0.18
