"""Residual records of measured rows: they tell the spread of shapes that a fit has not seen."""

import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.fit import read_measurements
from graphsim.calibration.held_out import covered, predicted_unseen
from graphsim.calibration.uncertainty import common_part, crossed_interval, groups_apart, quantiles_of, residual_record
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.residuals import ALL, PROBABILITIES, SCORES
from graphsim.hardware import load_hardware
from tests.paths import REFERENCE

GEMM = FAMILIES["gemm"]


@pytest.fixture(scope="module")
def products():
    """Products of many layouts whose estimates are all 10 us, and off by a normal error of 0.1 for each layout."""
    generator = np.random.default_rng(0)
    sides = 2.0 ** generator.uniform(8, 14, (400, 2))
    rows = pd.DataFrame({"n": sides[:, 0].round(), "k": sides[:, 1].round()})
    rows = rows.assign(error=generator.normal(0.0, 0.1, len(rows))).merge(pd.DataFrame({"m": [1, 64, 4096]}), "cross")
    return rows.assign(op="gemm", dtype="bfloat16", latency_us=10.0 * np.exp(rows["error"]))


def test_a_record_holds_the_quantiles_of_the_errors(products):
    found = residual_record(products, np.full(len(products), 10.0), GEMM)
    assert found["quantiles"]["bfloat16"][ALL] == pytest.approx(0.1 * SCORES, abs=0.05)
    assert found["layout"] == ["n", "k"] and found["ranges"] == {"m": [0.0, 12.0]}


def test_what_no_fit_predicted_does_not_count(products):
    unseen = np.where(np.arange(len(products)) % 2, 10.0, np.nan)
    assert residual_record(products, unseen, GEMM)["rows"] == len(products) // 2
    assert residual_record(products, np.full(len(products), np.nan), GEMM) == {}


def test_intervals_of_other_folds_hold_as_many_rows_as_they_say(products):
    unseen = np.full(len(products), 10.0)
    found = covered(products["latency_us"].to_numpy(), unseen, crossed_interval(products, unseen, GEMM))
    assert 0.74 < found["coverage"] < 0.86 and found["width"] == pytest.approx(1.0, abs=0.15)


def test_shapes_far_from_others_that_err_more_are_told_by_their_distance(products):
    lonely = products[:120].assign(n=lambda rows: 2.0 ** (18 + 0.4 * (np.arange(len(rows)) // 3)))
    lonely["latency_us"] = 10.0 * np.exp(5.0 * lonely["error"])
    rows = pd.concat([products, lonely], ignore_index=True)
    assert residual_record(rows, np.full(len(rows), 10.0), GEMM)["per_octave"] > 0.1
    assert "per_octave" not in residual_record(products, np.full(len(products), 10.0), GEMM)


def test_few_shapes_give_wider_quantiles():
    values = np.random.default_rng(1).normal(size=200)
    few, many = quantiles_of(values, 10), quantiles_of(values, 10_000)
    assert few[2] < many[2] < 0 < many[-3] < few[-3] and many == sorted(many)
    assert many == pytest.approx(np.quantile(values, PROBABILITIES), abs=0.02)


def test_groups_that_share_an_error_count_as_one_each():
    generator = np.random.default_rng(2)
    groups = np.repeat(np.arange(6), 50)
    shared, own = generator.normal(size=6)[groups], generator.normal(size=300)
    assert common_part(shared + 0.01 * own, groups) > 0.95 and groups_apart(shared + 0.01 * own, groups, 300) < 8
    assert common_part(own, groups) < 0.1 and common_part(own[:50], groups[:50]) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["moe", "collectives", "attention"])
def test_left_out_shapes_lie_in_their_intervals_as_often_as_these_say(family):
    path = REFERENCE / "kernels" / "a100_sxm.parquet"
    if not path.exists():
        pytest.skip("no reference measurements")
    frame, device = read_measurements(path), load_hardware("a100-sxm-80gb")
    rows = frame[frame["op"].isin(FAMILIES[family].ops)].reset_index(drop=True)
    unseen = predicted_unseen(rows, FAMILIES[family], device)
    ends = crossed_interval(rows, unseen, FAMILIES[family])
    found = covered(rows["latency_us"].to_numpy(), unseen, ends)
    assert 0.74 <= found["coverage"] <= 0.86 and found["width"] <= 1.5
