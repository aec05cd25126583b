"""Measured devices judged as if nobody had measured them, or their generation."""

import json

import numpy as np
import pandas as pd
import pytest

from graphsim.cli import main
from graphsim.validation.residuals import LIMITS
from graphsim.validation.unmeasured import unmeasured_errors, unmeasured_residuals


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """A few products on two devices of one generation, and on the only calibrated ones of two others."""
    m, k = np.meshgrid(2.0 ** np.arange(0, 12), [64.0, 4096.0])
    frame = pd.DataFrame({"m": m.ravel(), "n": 4096.0, "k": k.ravel(), "op": "gemm", "dtype": "bfloat16"})
    frame["latency_us"] = 10.0 + frame["m"] / 100.0
    path = tmp_path_factory.mktemp("kernels") / "rows.csv"
    pd.concat([frame.assign(gpu=gpu) for gpu in ("b200_sxm", "gb200", "a100_sxm", "l40s")]).to_csv(path, index=False)
    return path


def test_every_class_is_judged_with_and_without_the_devices_generation(products):
    found = unmeasured_errors(unmeasured_residuals([products]))
    assert list(found["kernels"]) == [*LIMITS, *LIMITS] and set(found["without"]) == {"device", "generation"}
    lines = found.set_index(["without", "kernels"])
    near, far = lines.loc[("device", "GEMM bf16")], lines.loc[("generation", "GEMM bf16")]
    assert near["b200-sxm"] != far["b200-sxm"], "the reference is its sibling, or Hopper"
    alone = ["a100-sxm-80gb", "l40s"]
    assert (near[alone] == far[alone]).all(), "they have no siblings among the calibrated"
    assert near["mean"] == pytest.approx(near[["b200-sxm", "gb200", *alone]].astype(float).mean())
    assert lines["mean"].notna().sum() == 4, "bf16 products of all shapes, and of those with a thin side"


def test_the_intel_cards_attention_is_shown_and_does_not_count(kernel_folder):
    lines = unmeasured_errors(unmeasured_residuals([kernel_folder / "b60.parquet"]))
    lines = lines.set_index(["without", "kernels"])
    erratic = lines.loc[("device", "decode attention")]
    assert erratic["arc-pro-b60"] > 0 and np.isnan(erratic["mean"])
    assert lines.loc[("device", "GEMM bf16"), "mean"] == lines.loc[("device", "GEMM bf16"), "arc-pro-b60"]


def test_a_sibling_lends_well_enough_for_a_device_nobody_measured(kernel_folder):
    paths = [kernel_folder / f"{name}.parquet" for name in ("b200_sxm", "gb200")]
    found = unmeasured_errors(unmeasured_residuals(paths))
    near = found[found["without"] == "device"].set_index("kernels")
    for name in set(LIMITS) - {"GEMM fp8, fp8_block"}:  # block-scaled calls wait for the host, and their hosts differ
        assert near.loc[name, "mean"] < LIMITS[name], name


def test_the_command_prints_the_table(products, capsys):
    assert main(["validate", "unmeasured", str(products), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    errors, coverage = ([row for row in rows if column in row] for column in ("limit", "coverage"))
    assert len(errors) == 2 * len(LIMITS) and len(errors) + len(coverage) == len(rows)
    judged = {row["without"]: row["coverage"] for row in coverage if row["rows"]}
    assert set(judged) == {"generation"}, "siblings' residuals are of a single generation"
    assert 0.0 <= judged["generation"] <= 1.0
