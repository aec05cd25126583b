import numpy as np
import pandas as pd
import pytest

from graphsim.cost.kernels import kernel_origins, predict_kernels, roofline_kernels
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware


def frame(**columns):
    defaults = {"op": "gemm", "dtype": "bfloat16", "m": [16, 4096], "n": 4096, "k": 4096}
    return pd.DataFrame(defaults | columns, index=[7, 3])


def test_one_latency_per_row_under_the_frames_own_index():
    found = predict_kernels(frame(), "h100-sxm")
    assert list(found.index) == [7, 3] and found.name == "latency_us" and (np.diff(found) > 0).all()


def test_mixed_ops_and_formats_are_priced_as_if_alone():
    mixed = pd.concat([frame(), frame(dtype="fp8"), frame(op="copy", kernel="copy", message_size=1e8)])
    together = predict_kernels(mixed.reset_index(drop=True), "h100-sxm").to_numpy()
    alone = [predict_kernels(part, "h100-sxm") for part in (frame(), frame(dtype="fp8"), mixed[4:])]
    assert np.array_equal(together, np.concatenate(alone))


def test_order_of_rows_does_not_matter():
    rows = pd.DataFrame({"op": "gemm", "dtype": ["fp8", "bfloat16"] * 50, "m": range(1, 101), "n": 512, "k": 640})
    shuffled = rows.sample(frac=1.0, random_state=0)
    assert predict_kernels(shuffled, "b200-sxm").sort_index().equals(predict_kernels(rows, "b200-sxm"))


def test_the_roofline_is_flops_at_peak_or_bytes_at_bandwidth():
    found = roofline_kernels(frame(), load_hardware("h100-sxm")).to_numpy()
    small = 2 * (16 * 4096 * 2 + 4096 * 4096) / 3.35e12
    assert found == pytest.approx([small * 1e6, 2 * 4096**3 / 989.4e12 * 1e6], rel=1e-9)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"op": "gem"}, "op 'gem' is not known; did you mean 'gemm'"),
        ({"dtype": "fp7"}, "gemm dtype 'fp7' is not known; did you mean 'fp8'"),
        ({"m": [0, 1]}, "column m is 0.0 in row 7"),
        ({"k": [1, None]}, "column k is nan in row 3"),
        ({"n": "many"}, "column n holds a value that is not a number"),
    ],
)
def test_a_row_that_cannot_be_priced_is_named(columns, message):
    with pytest.raises(ConfigError, match=message):
        predict_kernels(frame(**columns), "h100-sxm")


def test_missing_columns_are_named_together():
    with pytest.raises(ConfigError, match="columns n, k missing; rows of family 'gemm' need dtype, m, n, k"):
        predict_kernels(frame().drop(columns=["n", "k"]), "h100-sxm")


@pytest.mark.parametrize(
    ("device", "origin"),
    [
        ("h100-sxm", "calibrated"),
        ("gh200", "scaled from h100-sxm (hopper)"),
        ("gb300", "scaled from gb200 (blackwell)"),
        ("b300-sxm", "scaled from b200-sxm (blackwell)"),
        ("l4", "scaled from l40s (ada)"),
        ("mi355x", "scaled from b200-sxm (blackwell), h200-sxm (hopper)"),
        ("tpu-v5e", "roofline"),
    ],
)
def test_every_estimate_says_what_it_rests_on(device, origin):
    assert kernel_origins(["gemm"], load_hardware(device)) == {"gemm": origin}


def test_a_device_without_any_relative_gets_the_roofline():
    device = load_hardware("tpu-v5e")
    assert np.array_equal(predict_kernels(frame(), device), roofline_kernels(frame(), device))


def test_only_what_fits_the_cache_beats_the_roofline():
    sides = 2 ** np.arange(4, 15)
    m, n, k = (x.ravel() for x in np.meshgrid(sides, sides, sides))
    device = load_hardware("rtx-pro-6000")
    products = pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": m, "n": n, "k": k})
    faster = (predict_kernels(products, device) < 0.999999 * roofline_kernels(products, device)).to_numpy()
    moved_bytes = 2.0 * (m * k + n * k + m * n)
    assert faster.any() and (moved_bytes[faster] < device.cache_bytes).all()
