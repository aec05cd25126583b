"""Intervals of kernel rows: by a device's own residuals, by those of devices judged as unmeasured, or none."""

import json

import numpy as np
import pandas as pd
import pytest

from graphsim.cost.kernel_intervals import kernel_intervals
from graphsim.cost.kernels import predict_kernels
from graphsim.cost.parameters.borrowed import FILE, GENERATION, SIBLING, relation_of
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from tests.residual_records import device_with, record


@pytest.fixture
def rows():
    gemm = pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": [1, 64, 4096], "n": 4096, "k": 4096})
    reduce = pd.DataFrame({"op": "all_reduce", "dtype": "half", "message_size": [1024, 2**24], "num_devices": 4})
    return pd.concat([gemm, reduce]).set_index(pd.Index(["a", "b", "c", "d", "e"]))


def test_each_family_has_the_interval_of_its_own_residuals(tmp_path, rows):
    device = load_hardware(device_with(tmp_path, {"gemm": 0.05, "collectives": 0.2}))
    found = kernel_intervals(rows, device)
    assert list(found.index) == list(rows.index)
    assert found["latency_us"].to_numpy() == pytest.approx(predict_kernels(rows, device).to_numpy())
    width = np.log(found["high_us"] / found["low_us"]).to_numpy()
    assert width[:3] == pytest.approx(0.1 * 1.2816, rel=1e-3) and width[3:] == pytest.approx(0.4 * 1.2816, rel=1e-3)


def test_rows_without_residuals_have_no_ends(rows):
    found = kernel_intervals(rows[:3], "m2-ultra")
    assert found["latency_us"].notna().all() and found[["low_us", "high_us"]].isna().all(axis=None)


def test_what_is_borrowed_has_the_residuals_of_its_relation(tmp_path, rows, monkeypatch):
    folder = tmp_path / "hardware"
    folder.mkdir()
    borrowed = {SIBLING: {"base": {"gemm": record(0.1)}}, GENERATION: {"base": {"gemm": record(0.3)}}}
    (folder / FILE).write_text(json.dumps(borrowed), encoding="utf-8")
    monkeypatch.setenv("GRAPHSIM_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    widths = []
    for kin in (True, False):
        found = kernel_intervals(rows[:3], load_hardware("gb200"), own=False, kin=kin)
        widths.append(float(np.log(found["high_us"] / found["low_us"]).iloc[0]))
    assert widths == pytest.approx([0.2 * 1.2816, 0.6 * 1.2816], rel=1e-3)


def test_a_device_of_the_same_generation_is_a_sibling():
    device = load_hardware("h200-sxm")
    assert relation_of(device, "scaled from h100-sxm (hopper)") == SIBLING
    assert relation_of(device, "scaled from a100-sxm-80gb (ampere), b200-sxm (blackwell)") == GENERATION
    assert relation_of(device, "scaled from rtx-pro-6000 (host)") == GENERATION


def test_a_coverage_that_nobody_can_tell_is_refused(rows):
    with pytest.raises(ConfigError, match="coverage"):
        kernel_intervals(rows, "h100-sxm", 1.0)
