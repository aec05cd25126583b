"""Serving over time: every measured value is a row, predicted or with the reason why not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.validation.serving import MEASURED, NOT_SIMULATED, validate_serving
from tests.paths import REFERENCE

KEYS = ["id", "metric", "measured", "predicted", "error", "problem"]
ENERGY = {
    "id": "m-1", "hardware": "H100", "gpus": 1, "framework": "vllm 0.11.1 (V1)", "model": "meta-llama/Llama-3.2-1B",
    "precision": "bfloat16", "tp": 1, "ep": 1, "dp": 1, "task": "gpqa", "requests": 64, "max_num_seqs": 8,
    "avg_batch_size": 7.9, "avg_output_len": 40.0, "median_itl_ms": 3.0, "output_tok_s": 1500.0,
    "energy_per_token_j": 0.1,
}  # fmt: skip


def written(tmp_path: Path, name: str, rows: list[dict[str, object]]) -> str:
    path = tmp_path / name
    pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


def test_runs_find_their_metrics_beside_them_or_behind_them(tmp_path: Path) -> None:
    runs = written(tmp_path, "a_runs.csv", [{"id": "x", "model": "m", "rate": 1}])
    with pytest.raises(ConfigError, match="give the file of its metrics"):
        validate_serving([runs])
    metrics = written(
        tmp_path, "a_metrics.csv", [{"id": "x", "metric": "mean_ttft_ms", "value": 3.0, "unit": "ms"}] * 2
    )
    alone, both = validate_serving([runs]), validate_serving([runs, metrics])
    assert list(alone.columns[:6]) == KEYS and alone.equals(both)
    assert (alone["problem"] == NOT_SIMULATED).all() and alone["error"].isna().all() and len(alone) == 2


def test_a_column_for_each_quantity_gives_a_row_for_each(tmp_path: Path) -> None:
    row = {"id": "x", "request_rate": 4, "mean_ttft_ms": 5.0, "p99_itl_ms": None, "request_throughput": 3.9}
    found = validate_serving([written(tmp_path, "a.csv", [row])])
    assert list(found["metric"]) == ["mean_ttft_ms", "request_throughput"]


def test_saturated_servers_are_predicted_as_far_as_they_are_simulated(tmp_path: Path) -> None:
    found = validate_serving([written(tmp_path, "e.csv", [ENERGY, ENERGY | {"model": "nobody/no-such-model"}])])
    known, unknown = found[:3], found[3:]
    assert list(known["metric"]) == ["median_itl_ms", "output_tok_s", "energy_per_token_j"]
    assert (known["problem"] == "").all() and known["predicted"].gt(0).all()
    assert unknown["problem"].str.contains("no-such-model").all() and len(unknown) == 3


def test_settings_are_no_figures() -> None:
    for name in ("request_rate", "max_concurrency", "input_tokens", "num_prompts", "tp", "total_input_tokens"):
        assert not MEASURED.fullmatch(name)


@pytest.mark.slow
@pytest.mark.skipif(not (REFERENCE / "serving").is_dir(), reason="no reference data")
@pytest.mark.parametrize(
    "name", ["bsc_lora_serving_runs", "blis_vllm015_runs", "slora_runs", "dstack_qps_405b", "sglang_h200_open_loop",
             "lora_routing_two_replicas", "mlperf60", "peers_predictions", "threads", "llmservingsim_timeseries",
             "dstack_pd_h200"]
)  # fmt: skip
def test_every_table_is_taken(name: str) -> None:
    """Two of its runs: a table may hold hundreds of hours of a server."""
    found = validate_serving([str(REFERENCE / "serving" / f"{name}.csv")], rows=2)
    assert list(found.columns[:6]) == KEYS and len(found) > 1
