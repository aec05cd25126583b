import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.cost.families import moe
from graphsim.cost.families.moe_work import MoeShape, busiest_rows, experts_hit
from graphsim.cost.parameters.basis import basis
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware

DEVICES = ["a100-sxm-80gb", "h100-sxm", "b200-sxm", "gb200", "rtx-pro-6000", "h200-sxm", "l40s"]
LAYOUTS = [(4096, 1536, 8, 128), (6144, 16384, 2, 8), (7168, 2048, 8, 256), (2880, 2880, 4, 32), (5120, 8192, 1, 16)]
tokens = st.integers(0, 19).flatmap(lambda bits: st.integers(2**bits, 2 ** (bits + 1) - 1))
routers = st.sampled_from(["balanced", "uniform", "power_law_1.01", "power_law_1.2"])
formats = st.sampled_from(["bfloat16", "fp8", "fp8_block", "nvfp4", "int4_wo", "w4a16_mxfp4"])


def dims_of(layout, tp=1, ep=1):
    return dict(zip(("hidden", "inter", "topk", "experts"), layout, strict=True)) | {"tp": tp, "ep": ep}


def latency(device, **dims):
    hardware = load_hardware(device)
    return moe.latency_s(basis(hardware, "moe").parameters, hardware, MoeShape(**dims))


def test_a_uniform_router_hits_as_many_experts_as_in_a_draw():
    shape = MoeShape(m=40, topk=1, hidden=1, inter=1, experts=64, distribution="uniform")
    draws = np.random.default_rng(0).integers(0, 64, (20_000, 40))
    counted = np.mean([len(set(draw)) for draw in draws])
    assert float(experts_hit(shape)) == pytest.approx(counted, rel=0.01)


def test_a_balanced_router_hits_every_expert_once_there_are_enough_tokens():
    hits = experts_hit(MoeShape(m=np.array([1.0, 8.0, 16.0, 500.0]), topk=8, hidden=1, inter=1, experts=128))
    assert np.array_equal(hits, [8, 64, 128, 128])


@settings(max_examples=60, deadline=None)
@given(m=tokens, layout=st.sampled_from(LAYOUTS), router=routers, ep=st.sampled_from([1, 2, 4, 8]))
def test_experts_hit_and_rows_stay_within_what_the_tokens_allow(m, layout, router, ep):
    shape = MoeShape(m=m, distribution=router, **dims_of(layout, ep=ep))
    rows, topk, experts = m * layout[2], layout[2], layout[3]
    assert min(topk, experts) <= float(experts_hit(shape)) <= min(rows, experts) * (1 + 1e-9)
    assert rows / ep * (1 - 1e-9) <= float(busiest_rows(shape)) <= max(rows, 1.0) * (1 + 1e-9)


def test_the_more_skewed_router_hits_fewer_experts_and_loads_one_device_more():
    dims = {"m": 256.0, **dims_of(LAYOUTS[2], ep=8)}
    even, mild, steep = (
        MoeShape(distribution=name, **dims) for name in ("balanced", "power_law_1.01", "power_law_1.2")
    )
    assert float(experts_hit(even)) >= float(experts_hit(mild)) >= 0.9 * float(experts_hit(steep))
    assert float(busiest_rows(even)) < float(busiest_rows(mild)) < float(busiest_rows(steep))


@settings(max_examples=80, deadline=None)
@given(device=st.sampled_from(DEVICES), dtype=formats, m=tokens, layout=st.sampled_from(LAYOUTS), router=routers)
def test_every_block_takes_a_positive_finite_time_never_below_the_peak(device, dtype, m, layout, router):
    hardware, dims = load_hardware(device), dims_of(layout)
    time = float(latency(device, m=m, dtype=dtype, distribution=router, **dims))
    assert np.isfinite(time) and time > 0
    flops = 6.0 * m * dims["topk"] * dims["hidden"] * dims["inter"]
    assert time >= flops / max(hardware.flops_per_s.values())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(device=st.sampled_from(DEVICES), dtype=formats, m=tokens, layout=st.sampled_from(LAYOUTS), router=routers)
def test_four_times_the_tokens_are_not_faster(device, dtype, m, layout, router):
    dims = {"dtype": dtype, "distribution": router, **dims_of(layout)}
    assert float(latency(device, m=4 * m, **dims)) >= 0.95 * float(latency(device, m=m, **dims))


@pytest.mark.parametrize("device", DEVICES)
def test_far_outside_the_measured_range_time_grows_with_the_tokens(device):
    half, million = (float(latency(device, m=m, **dims_of(LAYOUTS[0]))) for m in (5e5, 1e6))
    assert 1.8 < million / half < 2.2


def test_arrays_give_what_single_numbers_give():
    m = np.array([1.0, 7.0, 64.0, 1000.0, 50_000.0])
    dims = {"dtype": "fp8", "distribution": "power_law_1.2", **dims_of(LAYOUTS[0], ep=4)}
    together = latency("h100-sxm", m=m, **dims)
    assert np.allclose(together, [float(latency("h100-sxm", m=x, **dims)) for x in m], rtol=1e-12)


def test_no_tokens_take_no_time_and_an_unnamed_kernel_is_the_most_measured_one():
    assert float(latency("h100-sxm", m=0.0, **dims_of(LAYOUTS[0]))) == 0.0
    known = basis(load_hardware("h100-sxm"), "moe").parameters["fp8_block"]
    times = [float(latency("h100-sxm", m=64, dtype="fp8_block", kernel=k, **dims_of(LAYOUTS[0]))) for k in ("", *known)]
    assert times[0] == times[1] != times[2]


def test_unknown_formats_and_routers_are_refused_by_name():
    with pytest.raises(ConfigError, match="moe dtype 'fp9'.*fp8"):
        latency("h100-sxm", m=1, dtype="fp9", **dims_of(LAYOUTS[0]))
    with pytest.raises(ConfigError, match="distribution 'random'.*uniform"):
        latency("h100-sxm", m=1, distribution="random", **dims_of(LAYOUTS[0]))


@pytest.mark.parametrize(("device", "start_s"), [("h100-sxm", 15e-6), ("h200-sxm", 15e-6)])
def test_no_surface_reads_weights_faster_than_any_measured_block_did(device, start_s):
    """Mixtral 8x7B over two and over one device: its hidden size and width go together in no measured model."""
    for tp in (1, 2):
        weights = 8 * 3 * 4096 * 14336 / tp * 2.0
        least = start_s + weights / (0.94 * load_hardware(device).memory_bytes_per_s)
        dims = dims_of((4096, 14336, 2, 8), tp=tp) | {"m": np.array([32.0, 64.0, 128.0]), "dtype": "bfloat16"}
        assert np.all(latency(device, **dims) >= least * (1 - 1e-9))
