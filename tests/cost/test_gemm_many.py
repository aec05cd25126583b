"""Many products at once cost, up to rounding, what each one costs alone."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.cost.families import gemm
from graphsim.cost.families.gemm import GemmShape
from graphsim.hardware import load_hardware

ROWS = np.random.default_rng(0).integers(1, 9000, 700).astype(float)
RANKS = np.array([1.0, 8.0, 64.0, 100.0, 256.0])


@pytest.mark.parametrize(
    "shape",
    [
        GemmShape(m=ROWS, n=4096.0, k=11008.0),
        GemmShape(m=ROWS[:, None], n=4096.0, k=RANKS),
        GemmShape(m=ROWS[:, None], n=RANKS, k=4096.0),
        GemmShape(m=ROWS, n=ROWS[::-1].copy(), k=ROWS + 1.0),
    ],
    ids=["one weight", "ranks as k", "ranks as n", "all different"],
)
def test_many_products_cost_what_each_costs_alone(shape: GemmShape) -> None:
    device, parameters = load_hardware("h100-sxm"), {"bfloat16": {"constants": gemm.START}}
    many = gemm.latency_s(parameters, device, shape)
    sizes = np.broadcast_arrays(shape.m, shape.n, shape.k)
    for at in np.ndindex(many.shape):
        if sum(at) % 37 == 0:
            m, n, k = (float(size[at]) for size in sizes)
            assert many[at] == pytest.approx(gemm.latency_s(parameters, device, GemmShape(m=m, n=n, k=k)), rel=1e-12)
