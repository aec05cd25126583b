"""Measured power and energy of saturated servers: a line for each figure, and the errors on models left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.power import fit_power, left_out_errors, main, power_errors, power_table
from graphsim.calibration.power_rows import power_row
from graphsim.cost.power import read_shares
from graphsim.errors import ConfigError
from graphsim.validation.energy import validate_energy
from tests.paths import REFERENCE

TABLE = REFERENCE / "serving" / "mlenergy.csv"
ROW = {
    "id": "one", "hardware": "NVIDIA H100", "gpus": 1, "framework": "vllm 0.11.1",
    "model": "meta-llama/Llama-3.1-8B-Instruct", "precision": "bfloat16", "tp": 1, "ep": 1,
    "task": "lm-arena-chat", "avg_batch_size": 32.0, "avg_output_len": 400.0, "median_itl_ms": 9.0,
    "energy_per_token_j": 0.15, "avg_power_w": 500.0,
}  # fmt: skip


def test_every_figure_has_a_line_and_a_reason_where_nothing_is_predicted() -> None:
    found = validate_energy(pd.DataFrame([ROW, ROW | {"model": "nobody/Nothing-1B"}, ROW | {"median_itl_ms": 0}]))
    assert list(found.columns[:6]) == ["id", "metric", "measured", "predicted", "error", "problem"]
    assert len(found) == 6
    assert (found["problem"] == "").tolist() == [True, True, False, False, False, False]
    assert found["predicted"].notna().tolist() == [True, True, False, False, False, False]
    with pytest.raises(ConfigError, match="avg_power_w"):
        validate_energy(pd.DataFrame([ROW]).drop(columns="avg_power_w"))


def test_energy_is_power_over_the_rate_at_the_measured_time() -> None:
    watts, joules = validate_energy(pd.DataFrame([ROW]))["predicted"]
    row = power_row(ROW)
    assert joules == pytest.approx(watts * row.step_s / row.sequences)
    slower = power_row(ROW | {"median_itl_ms": 18.0})
    assert slower.memory < row.memory and slower.compute < row.compute


def test_prompts_of_others_lengthen_the_mean_step_only_where_the_median_one_has_none() -> None:
    few, many = (power_row(ROW | {"avg_output_len": tokens}) for tokens in (4000.0, 100.0))
    assert few.step_s > 9e-3 and many.step_s > few.step_s
    assert few.step_s < 9.5e-3


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.is_file(), reason="the reference data are not here")
def test_errors_on_the_reference_with_models_left_out() -> None:
    table = power_table(pd.read_csv(TABLE).iloc[::2])
    assert len(table) > 150
    assert np.median(np.abs(power_errors(table, fit_power(table)))) < 0.09
    assert np.median(np.abs(left_out_errors(table))) < 0.105


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.is_file(), reason="the reference data are not here")
def test_shipped_constants_are_what_the_command_fits(tmp_path: Path) -> None:
    some = pd.read_csv(TABLE).iloc[::8]
    some.to_csv(tmp_path / "some.csv", index=False)
    assert list(main([str(tmp_path / "some.csv"), str(tmp_path / "power.json")]))
    shares = read_shares(tmp_path / "power.json")
    assert set(shares) == {"hopper", "blackwell"}
    shipped = json.loads((Path(__file__).parents[2] / "hardware" / "power.json").read_text())
    for name, own in shipped["generations"].items():
        assert shares[name].compute == pytest.approx(own["compute"], abs=0.25)


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.is_file(), reason="the reference data are not here")
def test_energy_at_the_measured_time_per_token() -> None:
    found = validate_energy(pd.read_csv(TABLE).iloc[::4])
    assert (found["problem"] == "").all()
    medians = found.assign(size=found["error"].abs()).groupby("metric")["size"].median()
    assert medians["avg_power_w"] < 0.10 and medians["energy_per_token_j"] < 0.12
