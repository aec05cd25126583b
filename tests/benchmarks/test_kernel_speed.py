"""Ratios of running times only: absolute times belong to a machine."""

import numpy as np
import pandas as pd

from graphsim.cost.kernels import predict_kernels, roofline_kernels
from graphsim.hardware import load_hardware
from tests.benchmarks import measure


def products(rows):
    random = np.random.default_rng(0)
    m, n, k = (np.round(2.0 ** random.uniform(3, 14, rows)) for _ in "mnk")
    return pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": m, "n": n, "k": k})


def test_pricing_from_a_calibration_costs_at_most_thirty_rooflines():
    frame, device = products(200_000), load_hardware("h100-sxm")
    calibrated, roofline = measure.cpu_seconds(
        lambda: predict_kernels(frame, device), lambda: roofline_kernels(frame, device), turns=3
    )
    assert calibrated < 30 * roofline


def test_time_grows_no_faster_than_the_rows():
    small, large, device = products(50_000), products(400_000), load_hardware("h100-sxm")
    few, many = measure.cpu_seconds(
        lambda: predict_kernels(small, device), lambda: predict_kernels(large, device), turns=3
    )
    assert many < 8 * 2.5 * few
