"""Tables of serving over time: every figure is a line, and runs of each layout come near what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.validation.serving import validate_serving
from graphsim.validation.serving_summary import summary
from tests.paths import REFERENCE
from tests.validation.test_measured_runs import BLIS, BSC, SLORA

KEYS = ["id", "metric", "measured", "predicted", "error", "problem"]
SERVING = REFERENCE / "serving"
needs_reference = pytest.mark.skipif(not SERVING.is_dir(), reason="no reference data")


def written(folder: Path, name: str, rows: list[dict[str, object]], figures: list[dict[str, object]]) -> str:
    """A table of runs with one of metrics beside it."""
    pd.DataFrame(rows).to_csv(folder / f"{name}_runs.csv", index=False)
    pd.DataFrame(figures).to_csv(folder / f"{name}_metrics.csv", index=False)
    return str(folder / f"{name}_runs.csv")


def figure(run: str, metric: str, value: float) -> dict[str, object]:
    return {"id": run, "metric": metric, "value": value, "unit": ""}


@pytest.mark.slow
def test_a_run_with_adapters_has_a_line_for_each_figure(tmp_path: Path) -> None:
    """The same figures where its metrics are given alone: the runs lie beside them."""
    names = (
        "completed",
        "request_throughput",
        "mean_ttft_ms",
        "mean_itl_ms",
        "max_running",
        "mean_kv_usage",
        "unheard",
    )
    figures = [figure("bsc-7", name, 1.0) for name in names] + [figure("nobody", "completed", 1.0)]
    runs = written(tmp_path, "a", [BSC | {"duration_s": 60.0}], figures)
    found = validate_serving([runs])
    assert list(found.columns[:6]) == KEYS and list(found["metric"]) == [*names, "completed"]
    known = found.iloc[:6]
    assert (known["problem"] == "").all() and known["predicted"].gt(0).all()
    assert known["predicted"].iloc[0] == pytest.approx(60 * known["predicted"].iloc[1], rel=0.02)
    assert known["predicted"].iloc[5] < 1
    assert list(found["problem"].iloc[6:]) == ["not simulated", f"{runs}: holds no run of this id"]
    pd.testing.assert_frame_equal(validate_serving([runs.replace("_runs", "_metrics")]), found)


@pytest.mark.slow
def test_parts_of_a_run_are_simulated_once_and_figures_are_the_clients(tmp_path: Path) -> None:
    rows = [BLIS | {"id": f"x-s{part}"} for part in ("0", "1", "all")]
    figures = [
        figure(str(row["id"]), name, value)
        for row in rows
        for name, value in (("mean_e2e_ms", 2000.0), ("mean_ttft_ms", 25.0), ("mean_tpot_ms", 4.0), ("sent", 9.0),
                            ("mean_itl_ms", 10.0), ("median_itl_ms", 0.1), ("mean_output_len", 190.0))
    ]  # fmt: skip
    said: list[str] = []
    found = validate_serving([written(tmp_path, "b", rows, figures)], progress=said.append)
    assert said == ["run 1 of 1: x-s0"]
    told = found.set_index(["id", "metric"])["predicted"]
    assert [told[f"x-s{part}", "sent"] for part in ("0", "1", "all")] == [120, 120, 240]
    rest = told["x-sall", "mean_e2e_ms"] - told["x-sall", "mean_ttft_ms"]
    assert told["x-sall", "mean_tpot_ms"] == pytest.approx(rest / 495, rel=1e-6)
    assert told["x-sall", "mean_itl_ms"] == pytest.approx(rest / (1975 / 10), rel=1e-6)
    without = found[found["predicted"].isna()]
    assert set(without["metric"]) == {"median_itl_ms", "mean_output_len"} and (without["problem"] != "").all()
    table = summary(found).set_index("metric")
    assert table.loc["mean_e2e_less_ttft_ms", "rows"] == 3


def test_rows_that_cannot_be_read_keep_their_figures(tmp_path: Path) -> None:
    runs = written(
        tmp_path, "c", [SLORA | {"id": "s", "input_tokens": "some"}], [figure("s", "throughput", 1.0)] * 2
    )  # fmt: skip
    found = validate_serving([runs])
    assert len(found) == 2 and found["problem"].str.contains("some").all() and summary(found).empty


@pytest.mark.slow
def test_peers_stand_beside_the_same_measurement(tmp_path: Path) -> None:
    peers = [
        {"id": "y-sall", "simulator": name, "metric": "mean_e2e_ms", "predicted": value, "measured": 2000.0}
        for name, value in (("one", 1000.0), ("other", 2200.0))
    ] + [{"id": "z", "simulator": "one", "metric": "mean_e2e_ms", "predicted": 1.0, "measured": 2.0}]
    written(tmp_path, "d", [BLIS | {"id": "y-sall", "arrival": "2/s for 20 s"}], [])
    pd.DataFrame(peers).to_csv(tmp_path / "peers.csv", index=False)
    found = validate_serving([str(tmp_path / "peers.csv")])
    assert list(found["peer_error"]) == pytest.approx([-0.5, 0.1, -0.5])
    assert found["predicted"].iloc[0] == found["predicted"].iloc[1] > 0 and "holds this id" in found["problem"].iloc[2]
    table = summary(found).set_index("simulator")
    assert dict(table["peer_median"]) == pytest.approx({"one": 0.5, "other": 0.1})
    assert set(table["graphsim_median"]) == {abs(found["error"].iloc[0])}


def test_a_sample_has_runs_at_all() -> None:
    with pytest.raises(ConfigError, match="rows = 0"):
        validate_serving(["x.csv"], 0)


def sample(name: str, ids: list[str], folder: Path) -> pd.DataFrame:
    """Some runs of a table with their metrics."""
    for kind in ("runs", "metrics"):
        frame = pd.read_csv(SERVING / f"{name}_{kind}.csv")
        frame[frame["id"].isin(ids)].to_csv(folder / f"{name}_{kind}.csv", index=False)
    return validate_serving([str(folder / f"{name}_runs.csv")])


def error(found: pd.DataFrame, metric: str) -> float:
    return float(np.abs(found[found["metric"] == metric]["error"]).median())


@needs_reference
@pytest.mark.slow
def test_an_hour_of_adapters_comes_near(tmp_path: Path) -> None:
    found = sample("bsc_lora_serving", ["bsc-0076"], tmp_path)
    assert len(found) == 23 and (found["problem"] == "").all()
    assert error(found, "request_throughput") < 0.06  # 3,400 requests, which came at random
    assert error(found, "mean_tpot_ms") < 0.08 and error(found, "mean_ttft_ms") < 0.2


@needs_reference
@pytest.mark.slow
def test_stages_at_constant_rates_come_near(tmp_path: Path) -> None:
    found = sample("blis_vllm015", ["blis-58-llama-2-70b-tp4-general-lite-4-1-s0"], tmp_path)
    assert error(found, "mean_e2e_ms") < 0.05 and error(found, "mean_ttft_ms") < 0.12


@needs_reference
@pytest.mark.slow
def test_bursts_to_many_adapters_come_near(tmp_path: Path) -> None:
    found = sample("slora", ["slora-0754"], tmp_path)
    assert error(found, "throughput") < 0.05 and error(found, "avg_first_token_latency") < 0.25


@needs_reference
@pytest.mark.slow
def test_starving_adapters_wait_as_long_as_was_measured(tmp_path: Path) -> None:
    frame = pd.read_csv(SERVING / "threads.csv")
    path = tmp_path / "threads.csv"
    frame[frame["id"] == "thr-sgl17913"].to_csv(path, index=False)
    found = validate_serving([str(path)])
    assert list(found["metric"]) == ["mean_e2e_ms", "median_e2e_ms", "p90_e2e_ms"]
    assert found["error"].abs().max() < 0.25
