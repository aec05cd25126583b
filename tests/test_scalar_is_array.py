"""Arrays over scenarios give what each scenario gives alone: for every operation, cut and cost model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.cost.base import BOUNDS
from graphsim.cost.choose import choose_cost
from graphsim.hardware import load_hardware
from graphsim.ops import Gemm, Launch, Norm, Op, Together, Work
from tests.operations import DIVISORS, FLAGS, FLOWING, KINDS, dims_of, variants

SCENARIOS = 4
QUICK = settings(deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
DEVICES = ("h100-sxm", "l4", "tpu-v5e")


PRICES = {"roofline": "roofline", "default": None}


FACTS = (
    "parameters", "trainable_parameters", "weight_storage_bytes", "state_bytes", "out_elems", "launches",
    "adapter_rank",
)  # fmt: skip

numbers = st.lists(st.integers(0, 4096), min_size=SCENARIOS, max_size=SCENARIOS)


def figures(op: Op) -> dict[str, object]:
    work = op.work()
    found: dict[str, object] = {f.name: getattr(work, f.name) for f in fields(Work)}
    found |= {name: getattr(op, name) for name in FACTS}
    for name in ("saved", "saved_for_weights"):
        kept = getattr(op, name)
        found |= {f"{name}.{part}": getattr(kept, part) for part in ("inputs", "result", "own")}
    return found | ({"in_elems": op.in_elems} if op.in_elems is not None else {}) | dict(op.out_parts)


def assert_equal(found: dict[str, object], alone: list[dict[str, object]]) -> None:
    for name, value in found.items():
        expected = [one[name] for one in alone]
        assert np.array_equal(np.broadcast_to(np.asarray(value), (SCENARIOS,)), np.asarray(expected)), name


def is_cut(op: Op) -> bool:
    """Whether devices may share the operation, or it is made for one device's share."""
    try:
        op.cut(2.0)
    except gs.GraphError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@settings(QUICK, max_examples=6)
@given(data=st.data())
def test_work_and_cut_of_arrays_are_those_of_each_scenario(kind: type[Op], data: st.DataObject) -> None:
    drawn = {name: np.array(data.draw(numbers), dtype=float) for name in dims_of(kind)}
    drawn |= {name: np.maximum(drawn[name], 1.0) for name in DIVISORS if name in drawn}
    ways = np.array(data.draw(st.lists(st.sampled_from([1.0, 2.0, 4.0, 8.0]), min_size=SCENARIOS, max_size=SCENARIOS)))
    singles = [variants(kind, {name: float(value[i]) for name, value in drawn.items()}) for i in range(SCENARIOS)]
    for form, op in enumerate(variants(kind, drawn)):
        alone = [single[form] for single in singles]
        assert_equal(figures(op), [figures(one) for one in alone])
        if is_cut(op):
            assert_equal(
                figures(op.cut(ways)), [figures(one.cut(float(w))) for one, w in zip(alone, ways, strict=True)]
            )


@pytest.mark.parametrize(
    ("kind", "device", "price"),
    [
        (kind, device, price)
        for number, kind in enumerate(KINDS)
        for place, device in enumerate(DEVICES)
        for price in PRICES
        if price == "default" or (number + place) % len(DEVICES) == 0
    ],
)
@settings(QUICK, max_examples=3)
@given(data=st.data())
def test_prices_of_arrays_are_those_of_each_scenario(
    kind: type[Op], device: str, price: str, data: st.DataObject
) -> None:
    """Every kind on every device at its default price; the roofline's, one formula for all devices, on one in turn."""
    hardware = load_hardware(device)
    cost, _ = choose_cost(PRICES[price], hardware)
    drawn = {name: np.array(data.draw(numbers), dtype=float) for name in dims_of(kind)}
    drawn |= {name: np.clip(drawn[name], 1.0, 64.0) for name in DIVISORS if name in drawn}
    drawn |= {"stride": np.minimum(drawn["stride"], 2.0)} if "stride" in drawn else {}  # devices are group x stride
    drawn |= {name: drawn[name] % 2.0 for name in FLAGS if name in drawn}
    singles = [variants(kind, {name: float(value[i]) for name, value in drawn.items()}) for i in range(SCENARIOS)]
    for form, op in enumerate(variants(kind, drawn)):
        found = cost(op, hardware)
        alone = [cost(single[form], hardware) for single in singles]
        for part in ("busy_s", "compute_s", "memory_s", "network_s", "launch_s", "latency_s", "bound_index"):
            value = np.broadcast_to(np.asarray(getattr(found, part)), (SCENARIOS,))
            np.testing.assert_allclose(value, [getattr(one, part) for one in alone], rtol=1e-12, err_msg=part)
        assert found.bound == alone[0].bound == BOUNDS[int(np.ravel(found.bound_index)[0])]
        assert np.all(np.asarray(found.latency_s) >= 0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Launch])
def test_no_work_takes_no_time(kind: type[Op]) -> None:
    """Zero is a number: an operation on nothing is not even launched, whatever its weights and group."""
    dims = {name: 0.0 if name in FLOWING else 1.0 if name in FLAGS else 8.0 for name in dims_of(kind)}
    assert 0.0 in dims.values(), f"{kind.__name__} does not say how much there is to do: {', '.join(FLOWING)}"
    hardware = load_hardware("h100-sxm")
    for op in variants(kind, dict(dims)):
        assert all(np.all(getattr(op.work(), f.name) == 0) for f in fields(Work)), f"work of nothing: {op}"
        for price in PRICES.values():
            cost, _ = choose_cost(price, hardware)
            assert cost(op, hardware).latency_s == 0, f"time for nothing: {op}"


def test_together_is_the_sum_of_its_parts() -> None:
    parts = (Gemm(m=np.array([1.0, 2.0]), n=8.0, k=4.0), Norm(rows=3.0, width=8.0))
    work = Together(parts=parts).work()
    for f in fields(Work):
        expected = sum(np.asarray(getattr(part.work(), f.name)) for part in parts)
        assert np.array_equal(np.broadcast_to(getattr(work, f.name), (2,)), np.broadcast_to(expected, (2,)))


MIXED = [
    gs.Parallelism(tp=np.array([1.0, 2.0, 4.0, 8.0])),
    gs.Parallelism(tp=np.array([1.0, 2.0, 4.0, 8.0]), sp=np.array([1.0, 2.0, 4.0, 8.0])),
    gs.Parallelism(tp=np.array([1.0, 2.0, 4.0, 8.0]), dp=np.array([2.0, 1.0, 3.0, 1.0])),
    gs.Parallelism(tp=np.array([1.0, 2.0, 4.0, 8.0]), pp=3),
    gs.Parallelism(tp=np.array([1.0, 2.0, 4.0, 8.0]), pp=2, micro_batches=5),
]


def ways_to_run() -> Iterator[object]:
    """Each parallelism with a dynamic adapter, and with another way to run one in turn."""
    others = (("dynamic", True), ("merge", False), ("merge", True))
    for number, parallelism in enumerate(MIXED):
        yield pytest.param(parallelism, "dynamic", False, id=f"{parallelism}-dynamic")
        strategy, sharded = others[number % len(others)]
        name = f"{parallelism}-{strategy}{'-sharded' if sharded else ''}"
        yield pytest.param(parallelism, strategy, sharded, marks=pytest.mark.slow, id=name)


@pytest.mark.parametrize(("parallelism", "strategy", "sharded"), list(ways_to_run()))
def test_passes_on_arrays_are_passes_on_each_scenario(
    parallelism: gs.Parallelism, strategy: str, sharded: bool
) -> None:
    """Inject, shard, pack, stages and micro-batches: every figure of the estimate, scenario by scenario."""
    batch, length, out = (
        np.array([1.0, 4.0, 9.0, 64.0]),
        np.array([7.0, 1000.0, 64.0, 300.0]),
        np.array([5.0, 1.0, 33.0, 8.0]),
    )
    rank = np.array([0.0, 8.0, 16.0, 64.0])

    def lora(rank: object) -> gs.LoraConfig:
        return gs.LoraConfig(rank=rank, strategy=strategy, fully_sharded_loras=sharded)  # type: ignore[arg-type]

    def degrees(i: int) -> gs.Parallelism:
        values = {f.name: getattr(parallelism, f.name) for f in fields(parallelism)}
        return gs.Parallelism(**{name: v if np.ndim(v) == 0 else float(v[i]) for name, v in values.items()})

    many = gs.simulate("qwen3-8b", "h100-sxm", batch, length, out, parallelism, lora(rank), engine="reference")
    for i in range(4):
        one = gs.simulate(
            "qwen3-8b", "h100-sxm", batch[i], length[i], out[i], degrees(i), lora(float(rank[i])), engine="reference"
        )
        for name in ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s"):
            found = np.broadcast_to(getattr(many, name), (4,))[i]
            assert found == pytest.approx(getattr(one, name), rel=1e-12), (i, name)
        for f in fields(many.memory):
            found = np.broadcast_to(getattr(many.memory, f.name), (4,))[i]
            assert found == pytest.approx(getattr(one.memory, f.name), rel=1e-12), (i, f.name)
        assert np.broadcast_to(many.memory.max_batch, (4,))[i] == one.memory.max_batch
