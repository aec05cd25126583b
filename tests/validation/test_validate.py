import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.held_out import held_out
from graphsim.cost.families import gemm
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from graphsim.validation.validate import hardware_name, validate_kernels


def test_errors_are_those_of_plain_arithmetic():
    rows = pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": [16, 64, 256], "n": [64, 512, 512], "k": 512})
    exact = validate_kernels(rows.assign(latency_us=1.0), "h100-sxm")
    from graphsim.cost.kernels import predict_kernels

    predicted = predict_kernels(rows, "h100-sxm")
    table = validate_kernels(rows.assign(latency_us=predicted / [1.1, 0.8, 1.3]), "h100-sxm")
    line = table[table["size"] == "all"].iloc[0]
    assert line["median"] == pytest.approx(0.2) and line["mean"] == pytest.approx(0.2) and line["rows"] == 3
    assert line["bias"] == pytest.approx(0.1) and line["origin"] == "calibrated" and len(exact)
    thin = table[table["size"] == "n or k up to 128"].iloc[0]
    assert thin["rows"] == 1 and thin["median"] == pytest.approx(0.1)


def test_validation_without_measured_latency_is_refused():
    with pytest.raises(ConfigError, match="latency_us is missing"):
        validate_kernels(pd.DataFrame({"op": ["gemm"]}), "h100-sxm")


def products(folder, gpu, dtype):
    frame = pd.read_parquet(folder / f"{gpu}.parquet")
    return frame[(frame["op"] == "gemm") & (frame["dtype"] == dtype)]


SLOW = [pytest.param(gpu, marks=pytest.mark.slow) for gpu in ("h100_sxm", "rtx_pro_6000_server")]


@pytest.mark.parametrize("gpu", ["a100_sxm", *SLOW])
@pytest.mark.slow
def test_a_fit_predicts_held_out_weight_shapes_of_bf16_products(kernel_folder, gpu):
    frame, device = products(kernel_folder, gpu, "bfloat16"), load_hardware(hardware_name(gpu))
    out = held_out(frame, ("n", "k"))
    table = validate_kernels(frame[out], device, parameters={"gemm": gemm.fit(frame[~out], device)})
    medians = table.set_index("size")["median"]
    assert medians["all"] < 0.05 and medians["n or k up to 128"] < 0.09
    assert medians["all"] < 0.2 * table.set_index("size")["roofline_median"]["all"]


@pytest.mark.parametrize(("gpu", "dtype", "limit"), [("b200_sxm", "bfloat16", 0.09), ("gb200", "fp8", 0.15)])
def test_a_generation_predicts_a_sister_that_was_never_measured(kernel_folder, gpu, dtype, limit):
    table = validate_kernels(products(kernel_folder, gpu, dtype), hardware_name(gpu), own=False)
    line = table[table["size"] == "all"].iloc[0]
    assert "scaled from" in line["origin"] and line["median"] < limit and abs(line["bias"]) < limit


def test_a_million_tokens_stay_within_reach_of_the_roofline():
    rows = pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": 1e6, "n": [1024, 8192, 28672], "k": 8192.0})
    table = validate_kernels(rows.assign(latency_us=2 * 1e12 * rows["n"] * rows["k"] / 989.4e12), "h100-sxm")
    assert np.isfinite(table["median"]).all() and table["bias"].max() < 1.0
