"""Shares of the peak from tables of tuned GEMMs: which rows count, for which device, and what the others take."""

from __future__ import annotations

import pandas as pd
import pytest

from graphsim.calibration.tuned_gemms import gemm_shares, is_tuned
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from graphsim.training.rates import rates_of

MI355X = load_hardware("mi355x")
SHAPE = {"M": 4096, "N": 8192, "K": 2048}
FLOPS = 2.0 * 4096 * 8192 * 2048


def row(kernel: str, share: float, number_format: str, **other: object) -> dict[str, object]:
    """A row of an MI355X whose kernel reaches a share of the peak of a format."""
    us = FLOPS / (share * MI355X.flops_per_s[number_format]) * 1e6
    return {"cu_num": MI355X.cores, **SHAPE, "us": us, "kernelName": kernel} | other


def test_shares_that_made_the_times_are_found_again() -> None:
    """The fastest of a shape, the median of shapes, each of its own peak; small shapes are bound by other things."""
    fp4 = [row("_ZN5aiter41f4gemm_bf16_per1x32Fp4", share, "fp4") for share in (0.4, 0.3)]
    fp4 += [row("a4w4_blockscale_256x128", share, "fp4", N=8192 + n) for n, share in ((8, 0.3), (16, 0.5))]
    fp4 += [row("a4w4_blockscale_256x128", 0.01, "fp4", M=16)]
    fp8 = [row("a8w8_bpreshuffle_256", 0.45, "fp8", q_dtype_w="torch.float8_e4m3fn")]
    shares = gemm_shares([pd.DataFrame(fp4), pd.DataFrame(fp8)], ["mi355x"])["mi355x"]
    assert shares["mxfp4"] == pytest.approx(0.4, rel=2e-3)
    assert shares["fp8"] == shares["bfloat16"] == pytest.approx(0.45)


def test_rows_of_other_kernels_formats_and_devices_do_not_count() -> None:
    others = [
        row("a8w8_bpreshuffle_256", 0.9, "fp8", q_dtype_w="torch.int8"), row("a8w8_bpreshuffle_256", 0.9, "fp8"),
        row("a8w8_blockscale_bpreshuffle_1x128x128", 0.9, "fp8", q_dtype_w="torch.float8_e4m3fn"),
        row("a8w8_bpreshuffle_256", 0.9, "fp8", q_dtype_w="torch.float8_e4m3fn", cu_num=80),
    ]  # fmt: skip
    frame = pd.DataFrame(others)
    assert is_tuned(frame) and not is_tuned(frame.drop(columns="us"))
    of_peak = rates_of(MI355X).of_peak
    assert gemm_shares([frame], ["mi355x"]) == {"mi355x": {"fp8": of_peak, "bfloat16": of_peak}}
    with pytest.raises(ConfigError, match="us"):
        gemm_shares([pd.DataFrame([row("a8w8_bpreshuffle_256", 0.9, "fp8", q_dtype_w="float8", us=0.0)])], ["mi355x"])
