"""Many products at once cost, up to rounding, what each one costs alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from graphsim.cost.calibrated import calibrated
from graphsim.cost.families import gemm
from graphsim.cost.families.gemm import GemmShape
from graphsim.hardware import load_hardware
from graphsim.symbolic.kernel import Kernel

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


def test_a_weight_that_comes_back_costs_under_any_rows_what_a_new_one_costs() -> None:
    device, random = load_hardware("h100-sxm"), np.random.default_rng(0)
    price = calibrated(device)[0].kernel_s
    kernel = Kernel(("m", "n", "k"), lambda m, n, k: price(GemmShape(m=m, n=n, k=k)))
    weights = [(4096.0, 4096.0), (28672.0, 4096.0), (16.0, 4096.0), (4096.0, 16.0), (0.0, 64.0), (96.0, 1e5)]
    rows = np.concatenate([[0.0], np.round(2.0 ** random.uniform(0.0, 20.0, 300))])
    for n, k in weights:
        alone = [float(price(GemmShape(m=m, n=n, k=k))) for m in rows.tolist()]
        assert [kernel(m, n, k) for m in rows.tolist()] == pytest.approx(alone, rel=1e-13)
        assert kernel(rows, n, k) == pytest.approx(alone, rel=1e-13)


def test_threads_that_make_room_for_each_other_get_their_own_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphsim.symbolic.kernel._MOST_KEPT", 3)
    kernel = Kernel(("m", "n"), lambda m, n: m + n / 7.0)
    asked = [[(float(m), float(n)) for n in range(4)] for m in range(400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda calls: [kernel(*sizes) for sizes in calls], asked))
    assert found == [[m + n / 7.0 for n in range(4)] for m in range(400)]
