import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.cost.families import formats, gemm
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.parameters.basis import basis
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware

DEVICES = ["a100-sxm-80gb", "h100-sxm", "b200-sxm", "gb200", "rtx-pro-6000", "h200-sxm", "l40s"]
FORMATS = ["bfloat16", "fp8", "fp8_block", "nvfp4", "int8", "int4_wo"]
sizes = st.integers(1, 20).flatmap(lambda bits: st.integers(2 ** (bits - 1), 2**bits))


def parameters(hardware):
    return basis(hardware, "gemm").parameters


def latency(device, dtype="bfloat16", eager=False, **dims):
    hardware = load_hardware(device)
    return gemm.latency_s(parameters(hardware), hardware, GemmShape(dtype=dtype, eager=eager, **dims))


@settings(max_examples=60, deadline=None)
@given(device=st.sampled_from(DEVICES), dtype=st.sampled_from(FORMATS), m=sizes, n=sizes, k=sizes)
def test_every_product_takes_a_positive_finite_time_never_below_the_peak(device, dtype, m, n, k):
    hardware = load_hardware(device)
    time = float(latency(device, dtype, m=m, n=n, k=k))
    assert np.isfinite(time) and time > 0
    least = 2.0 * m * n * k / formats.peak_of(hardware, formats.GEMM[dtype].rates)
    assert time >= least * (1 - 1e-12)  # to rounding


@settings(max_examples=60, deadline=None)
@given(device=st.sampled_from(DEVICES), dtype=st.sampled_from(FORMATS), m=sizes, n=sizes, k=sizes)
def test_a_product_too_big_for_the_cache_moves_its_bytes_at_most_at_memory_bandwidth(device, dtype, m, n, k):
    hardware, form = load_hardware(device), formats.GEMM[dtype]
    moved = form.inputs.bytes * m * k + form.weights.bytes * n * k + 2.0 * m * n
    if moved > hardware.cache_bytes:
        assert float(latency(device, dtype, m=m, n=n, k=k)) >= moved / hardware.memory_bytes_per_s


@settings(max_examples=40, deadline=None)
@given(
    device=st.sampled_from(DEVICES),
    dtype=st.sampled_from(FORMATS),
    m=sizes,
    n=sizes,
    k=sizes,
    which=st.sampled_from("mnk"),
)
def test_four_times_the_work_in_any_dimension_is_not_faster(device, dtype, m, n, k, which):
    dims = {"m": m, "n": n, "k": k}
    more = dims | {which: 4 * dims[which]}
    assert float(latency(device, dtype, **more)) >= 0.8 * float(latency(device, dtype, **dims))


@pytest.mark.parametrize("device", DEVICES)
def test_far_outside_the_measured_range_time_grows_with_the_work(device):
    million, two = (float(latency(device, m=m, n=8192.0, k=8192.0)) for m in (1e6, 2e6))
    assert 1.9 < two / million < 2.1
    assert million < 3.0 * 2.0 * 1e6 * 8192.0**2 / load_hardware(device).peak("bf16")


def test_arrays_give_what_single_numbers_give():
    m = np.array([1.0, 7.0, 64.0, 1000.0, 50_000.0])
    together = latency("h100-sxm", "fp8", m=m, n=4096.0, k=512.0)
    assert np.allclose(together, [float(latency("h100-sxm", "fp8", m=x, n=4096.0, k=512.0)) for x in m], rtol=1e-12)


def test_no_rows_and_no_rank_take_no_time():
    assert np.array_equal(latency("h100-sxm", m=np.array([0.0, 5.0]), n=np.array([64.0, 0.0]), k=64.0), [0.0, 0.0])


def test_a_captured_graph_hides_the_hosts_time_of_a_block_scaled_product():
    eager, captured = (float(latency("h100-sxm", "fp8_block", eager=e, m=8, n=512, k=512)) for e in (True, False))
    assert captured < 0.3 * eager


def test_four_bit_weights_of_a_thin_batch_read_faster_than_sixteen_bit_ones():
    assert latency("h100-sxm", "int4_wo", m=1, n=28672, k=8192) < 0.5 * latency("h100-sxm", m=1, n=28672, k=8192)


def test_without_a_matrix_unit_for_a_format_its_weights_are_widened():
    as_run = latency("a100-sxm-80gb", "fp8", m=4096, n=4096, k=4096)
    assert as_run == latency("a100-sxm-80gb", "int8_wo", m=4096, n=4096, k=4096)
    assert as_run > 2.0 * 4096**3 / 312e12


def test_a_faster_memory_speeds_up_what_memory_bounds():
    h100, h200 = load_hardware("h100-sxm"), load_hardware("h200-sxm")
    parameters, shape = basis(h100, "gemm").parameters, GemmShape(m=1.0, n=57344.0, k=8192.0)
    times = [float(gemm.latency_s(parameters, device, shape)) for device in (h200, h100)]
    assert times[0] / times[1] == pytest.approx(3.35 / 4.8, rel=0.03)


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        latency("h100-sxm", "bfloat15", m=1, n=1, k=1)
