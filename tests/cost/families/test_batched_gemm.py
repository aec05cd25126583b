from dataclasses import replace

import numpy as np
import pytest

from graphsim.cost.families import batched_gemm
from graphsim.cost.families.batched_gemm import BatchedShape
from graphsim.hardware import load_hardware
from tests.paths import REFERENCE

PRE = BatchedShape(m=256.0, n=512.0, k=128.0, heads=16.0)


def price(shape, parameters=None, device="h200-sxm"):
    return batched_gemm.latency_s(parameters or {}, load_hardware(device), shape)


def fit_of(dtype, **changed):
    return {"constants": batched_gemm.start_of(dtype) | changed}


def test_every_head_brings_weights_and_inputs_of_its_own():
    assert PRE.moved_bytes == 2.0 * 16 * (128 * 512 + 256 * (128 + 512))


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_more_rows_or_heads_never_take_less_and_nothing_beats_the_roofline(dtype):
    hardware, sizes = load_hardware("h200-sxm"), 2.0 ** np.arange(0.0, 8.0)
    for grown in (replace(PRE, dtype=dtype, m=64.0 * sizes), replace(PRE, dtype=dtype, heads=sizes)):
        times = price(grown)
        assert (np.diff(times) > 0).all()
        assert (times >= batched_gemm.floor_s(hardware, grown)).all()
    assert price(replace(PRE, m=0.0)) == 0.0


def test_a_format_that_was_not_measured_runs_in_16_bits_and_block_scales_as_fp8():
    only_16 = {"pre": {"bfloat16": fit_of("bfloat16")}}
    both = {"pre": only_16["pre"] | {"fp8": fit_of("fp8", launch_s=5e-5)}}
    for name in ("fp8", "fp8_block", "nvfp4"):
        assert price(replace(PRE, dtype=name), only_16) == price(PRE, only_16)
    assert price(replace(PRE, dtype="fp8_block"), both) > 5e-5
    assert price(replace(PRE, dtype="nvfp4"), both) == price(PRE, both)


def test_the_two_sides_of_attention_have_fits_of_their_own():
    parameters = {"pre": {"bfloat16": fit_of("bfloat16")}, "post": {"bfloat16": fit_of("bfloat16", launch_s=1e-3)}}
    assert price(replace(PRE, n=128.0, k=512.0), parameters) > 1e-3 > price(PRE, parameters)


@pytest.mark.slow
def test_head_layouts_left_out_err_less_than_eight_percent():
    pandas = pytest.importorskip("pandas")
    path = REFERENCE / "modules" / "mla_bmm.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    frame = pandas.read_parquet(path)
    frame = frame[(frame.gpu == "h200_sxm") & (frame.framework == "vllm") & frame.op.str.endswith("pre")]
    out = frame.heads.isin([8, 32])
    fitted = batched_gemm.fit(frame[~out], load_hardware("h200-sxm"))
    predicted_us = 1e6 * price(batched_gemm.shape_of(frame[out]), fitted)
    assert np.median(np.abs(predicted_us / frame[out].latency_us - 1.0)) < 0.08
