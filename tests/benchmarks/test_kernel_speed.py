"""Ratios of running times only: absolute times belong to a machine."""

import time

import numpy as np
import pandas as pd

from graphsim.cost.kernels import predict_kernels, roofline_kernels
from graphsim.hardware import load_hardware


def products(rows):
    random = np.random.default_rng(0)
    m, n, k = (np.round(2.0 ** random.uniform(3, 14, rows)) for _ in "mnk")
    return pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": m, "n": n, "k": k})


def seconds(call, repeats=3):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def test_pricing_from_a_calibration_costs_at_most_thirty_rooflines():
    frame, device = products(200_000), load_hardware("h100-sxm")
    calibrated = seconds(lambda: predict_kernels(frame, device))
    assert calibrated < 30 * seconds(lambda: roofline_kernels(frame, device))


def test_time_grows_no_faster_than_the_rows():
    small, large, device = products(50_000), products(400_000), load_hardware("h100-sxm")
    once = seconds(lambda: predict_kernels(small, device))
    assert seconds(lambda: predict_kernels(large, device), repeats=2) < 8 * 2.5 * once
