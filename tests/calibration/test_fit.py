import json

import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.fit import Source, calibrate, calibrate_files, read_measurements
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.kernel_intervals import kernel_intervals
from graphsim.cost.kernels import predict_kernels, predict_with
from graphsim.cost.parameters.basis import basis
from graphsim.cost.parameters.store import calibration_path, load_calibration
from graphsim.cost.residuals import RESIDUALS
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware

YAML = """
title: A device of the test
architecture: other
flops_per_s: {bf16: 100 TFLOP/s}
vector_flops_per_s: 10 TFLOP/s
memory: {capacity: 16 GiB, bandwidth: 1 TB/s, cache: 16 MiB}
cores: 64
clock: 1.5 GHz
host_link: {bandwidth: 30 GB/s, latency: 10 us}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("device")
    (path / "mine.yaml").write_text(YAML)
    (path / "bare.yaml").write_text(YAML)
    return path


@pytest.fixture(scope="module")
def measured():
    """Products of an imaginary machine that reaches 70 % of peak and 80 % of bandwidth behind 4 us."""
    random = np.random.default_rng(0)
    side = 2.0 ** np.arange(6, 14)
    n, k, m = (x.ravel() for x in np.meshgrid(side, side, [1, 64, 1024]))
    flops_s, bytes_s = 2 * m * n * k / 70e12, 2 * (m * k + n * k + m * n) / 0.8e12
    latency_us = 1e6 * (4e-6 + np.hypot(flops_s, bytes_s)) * np.exp(random.normal(0, 0.02, m.size))
    return pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": m, "n": n, "k": k, "latency_us": latency_us})


@pytest.fixture(scope="module")
def calibrated(folder, measured):
    measured.to_csv(folder / "rows.csv", index=False)
    (path,) = calibrate_files([folder / "rows.csv"], folder / "mine.yaml", date="2026-01-01")
    return path


@pytest.mark.slow
def test_a_calibration_predicts_whole_shapes_it_has_not_seen(calibrated, measured):
    record = load_calibration(calibrated).provenance["families"]["gemm"]
    assert record["points"] == len(measured) and record["data"] == ["rows.csv"] and record["date"] == "2026-01-01"
    assert record["median_error"] < 0.04 and record["held_out_median_error"]["bfloat16"] < 0.08


@pytest.mark.slow
def test_a_calibration_tells_how_far_its_estimates_may_be_off(calibrated, folder, measured):
    found = kernel_intervals(measured, folder / "mine.yaml")
    inside = (measured["latency_us"] >= found["low_us"]) & (measured["latency_us"] <= found["high_us"])
    assert inside.mean() > 0.74 and np.log(found["high_us"] / found["low_us"]).median() < 0.3


@pytest.mark.slow
def test_the_same_measurements_give_the_same_file(calibrated, folder, tmp_path):
    (again,) = calibrate_files([folder / "rows.csv"], folder / "mine.yaml", tmp_path / "again", date="2026-01-01")
    assert again.read_bytes() == calibrated.read_bytes() and calibrated.stat().st_size < 40_000


def test_a_calibration_beside_the_device_file_is_used_from_then_on(calibrated, folder, measured):
    device, bare = load_hardware(folder / "mine.yaml"), load_hardware(folder / "bare.yaml")
    assert calibrated == folder / "mine.calibration.json"
    assert basis(device, "gemm").origin == "calibrated" and basis(bare, "gemm").origin == "roofline"
    assert basis(device, "gemm", own=False).origin == "roofline"
    error = np.abs(predict_kernels(measured, device) / measured["latency_us"] - 1.0)
    assert np.median(error) < 0.04


def test_families_without_new_measurements_are_kept(calibrated, folder):
    sizes = 2.0 ** np.arange(10, 28)
    copies = pd.DataFrame({"op": "copy", "dtype": "bfloat16", "kernel": "copy", "message_size": sizes})
    copies["latency_us"] = 5.0 + sizes * 4 / 0.8e12 * 1e6
    before, device = load_calibration(calibrated), load_hardware(folder / "mine.yaml")
    after = calibrate([Source(name="copies", frame=copies)], device)
    assert after.families["gemm"] == before.families["gemm"]
    assert set(after.provenance["families"]) == {"elementwise", "gemm"}
    borrowed = predict_with(copies, device, parameters=after.families)
    assert np.abs(borrowed / copies["latency_us"] - 1.0).max() < 0.1


def test_without_pyarrow_a_parquet_file_is_one_sentence_that_says_what_to_install(tmp_path, monkeypatch):
    def absent(_):
        raise ImportError("Unable to find a usable engine;\ntried using: 'pyarrow'")

    monkeypatch.setattr(pd, "read_parquet", absent)
    with pytest.raises(ConfigError, match=r'mine.parquet: .* pip install "graphsim-llm\[parquet\]", or give CSV$'):
        read_measurements(tmp_path / "mine.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("op,dtype\ngemm,bfloat16\n", "latency_us missing"),
        ("op,dtype,latency_us\ngemm,bfloat16,-1\n", "latency_us must be above 0"),
        ("", "the file is empty, expected measurements"),
    ],
)
def test_a_file_that_holds_no_measurements_is_refused(tmp_path, text, message):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_measurements(path)


SLOW_TO_FIT = [pytest.param(name, marks=pytest.mark.slow) for name in ("gemm", "attention")]


@pytest.mark.parametrize("family", [*SLOW_TO_FIT, "moe", "collectives"])
def test_a_shipped_calibration_is_what_the_same_measurements_give_again(kernel_folder, family):
    device = load_hardware("a100-sxm-80gb")
    frame = read_measurements(kernel_folder / "a100_sxm.parquet")
    rows = frame[frame["op"].isin(FAMILIES[family].ops)]
    path = calibration_path(device)
    assert path is not None
    shipped = json.loads(path.read_text(encoding="utf-8"))["families"][family]
    shipped.pop(RESIDUALS, None)
    fitted = FAMILIES[family].module.fit(rows, device)
    assert json.loads(json.dumps(fitted)) == shipped
