"""Both sides of hyper-connections: limits, order, kernels that take turns, and errors on what was left out."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.cost.families.hyper_connections import HyperConnectionShape, fit, latency_s, roofline_s
from graphsim.cost.kernels import predict_with
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from tests.cost.families.fitted import DEVICES, fitted, lent_error, measured, median_error

TOKENS = 2.0 ** np.linspace(0.0, 20.0, 161)


def shape(**given):
    return HyperConnectionShape(**({"tokens": 64.0, "hidden": 4096.0} | given))


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["pre", "post"])
@pytest.mark.parametrize(("device", "framework"), [("h100_sxm", "vllm"), ("gb200", "trtllm"), ("b200_sxm", "trtllm")])
def test_more_tokens_are_never_faster_whichever_kernel_serves_them(device, framework, phase):
    parameters, hardware = fitted("hyper_connections", device, framework)
    time = latency_s(parameters, hardware, shape(tokens=TOKENS[:, None], hidden=np.array([4096.0, 7168.0, 12288.0]),
                                                 phase=phase))  # fmt: skip
    assert (time >= 0.96 * np.maximum.accumulate(time, axis=0)).all()
    assert (np.diff(time, axis=1) >= 0).all(), "wider streams"


def test_sites_add_up_and_nothing_takes_no_time():
    parameters, hardware = fitted("hyper_connections", "h100_sxm", "vllm")
    one, two = (float(latency_s(parameters, hardware, shape(sites=n))) for n in (1.0, 2.0))
    assert two == pytest.approx(2.0 * one)
    assert float(latency_s(parameters, hardware, shape(tokens=0.0))) == 0.0


def test_every_stream_has_to_come_from_memory_once():
    hardware = load_hardware("h100-sxm")
    long = shape(tokens=TOKENS[-20:], phase="post")
    assert (latency_s({}, hardware, long) >= roofline_s(hardware, long)).all()


def test_another_side_is_refused_by_name():
    with pytest.raises(ConfigError, match="phase 'past' is not known"):
        latency_s({}, load_hardware("h100-sxm"), shape(phase="past"))


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("framework", ["vllm", "sglang", "trtllm"])
def test_a_width_left_out_errs_by_twelve_percent_at_most(device, framework):
    rows, hardware = measured("hyper_connections", device, framework), load_hardware(DEVICES[device])
    for op, of_op in rows.groupby("op"):
        for width in (4096, 7168):
            out = of_op["hidden"] == width
            known = {"hyper_connections": fit(of_op[~out], hardware)}
            found = predict_with(of_op[out], hardware, parameters=known).to_numpy()
            assert median_error(found, of_op[out]) < 0.12, (op, width)


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(("device", "sibling"), [("h100_sxm", "h200_sxm"), ("h200_sxm", "h100_sxm"),
                                                 ("gb200", "b200_sxm"), ("b200_sxm", "gb200")])  # fmt: skip
def test_a_device_left_out_errs_by_twenty_two_percent_at_most(device, sibling, framework):
    assert lent_error("hyper_connections", device, sibling, framework) < 0.22
