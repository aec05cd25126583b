"""Residuals of served rows by engine, and how many rows lie in the intervals that they give."""

import json

import numpy as np
import pandas as pd
import pytest

from graphsim.cost.residuals import ALL, SCORES
from graphsim.cost.served import ServedEngine
from graphsim.validation.served_intervals import counted, save_served, served_coverage, served_record


@pytest.fixture(scope="module")
def table():
    """Rows of two engines and eight models, off by a normal error of 0.1 of each row and 0.05 of each model."""
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"engine": "vllm", "model": [f"m{i % 8}" for i in range(800)]})
    rows.loc[600:, "engine"] = "sglang"
    rows["metric"] = np.where(np.arange(800) % 2, "ttft_ms", "tpot_ms")
    rows["concurrency"] = np.where(np.arange(800) % 4 < 2, 4, 64)
    shared = rows["model"].map({f"m{i}": value for i, value in enumerate(generator.normal(0, 0.05, 8))})
    error = shared + generator.normal(0, 0.1, 800)
    return rows.assign(predicted=10.0, measured=10.0 * np.exp(error), problem="", judged="clean")


def test_rows_that_are_judged_apart_or_were_not_simulated_do_not_count(table):
    doubtful = table.assign(judged=np.where(np.arange(800) < 100, "speculative", "clean"))
    failed = doubtful.assign(problem=np.where(np.arange(800) < 200, "does not fit", ""))
    assert len(counted(table)) == 800 and len(counted(doubtful)) == 700 and len(counted(failed)) == 600


def test_an_engine_has_quantiles_of_both_times_and_classes_of_clients(table):
    found = served_record(table)
    assert set(found) == {"vllm", "sglang"} and set(found["vllm"]) == {"ttft_s", "tpot_s"}
    for classes in found["vllm"].values():
        assert set(classes) == {ALL, "16", "inf"}
        assert classes[ALL][-3] - classes[ALL][2] == pytest.approx(2.56 * 0.112, rel=0.35)


def test_what_kernels_explain_is_no_error_of_the_server(table):
    whole = served_record(table)["vllm"]["tpot_s"][ALL]
    rest = served_record(table.assign(kernel_width=0.2))["vllm"]["tpot_s"][ALL]
    none = served_record(table.assign(kernel_width=2.0))["vllm"]["tpot_s"][ALL]
    assert rest[-3] - rest[2] == pytest.approx(np.sqrt((whole[-3] - whole[2]) ** 2 - 0.2**2), rel=1e-2)
    assert none[-3] == none[2]


def test_intervals_by_other_models_hold_as_many_rows_as_they_say(table):
    found = served_coverage(table).set_index(["engine", "quantity"])
    for quantity in ("ttft_s", "tpot_s"):
        line = found.loc[(ALL, quantity)]
        assert line["rows"] == 400 and 0.72 <= line["coverage"] <= 0.9 and line["width"] <= 1.5


def test_few_clients_have_other_residuals_than_many():
    few, many = ([width * score for score in SCORES] for width in (0.1, 0.3))
    engine = ServedEngine(quantities={"tpot_s": {ALL: few, "16": few, "inf": many}})
    factors = engine.factors("tpot_s", np.array([1.0, 16.0, 17.0]), np.array([-1.0, 1.0]))
    assert np.log(factors[1] / factors[0]) == pytest.approx([0.2, 0.2, 0.6], rel=1e-2)


def test_the_file_is_json_of_engines(table, tmp_path):
    save_served(table, tmp_path / "served.json")
    found = json.loads((tmp_path / "served.json").read_text())
    assert found["engines"] == served_record(table)
