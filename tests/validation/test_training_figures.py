"""Figures of training runs: each is a row in the file's unit, and what no step has says so."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.validation.training import summary, validate_training
from graphsim.validation.training_cases import case_of, key_of
from graphsim.validation.training_figures import figure, is_simulated, kind_of
from tests.validation.test_training_rows import ROW

CASE = case_of(ROW)
MEMORY = SimpleNamespace(
    total_bytes=2.0**33, steady_bytes=2.0**32, reserved_bytes=2.0**34, weights_bytes=1.0, gradients_bytes=2.0,
    optimizer_bytes=3.0, adapters_bytes=4.0, activations_bytes=5.0, logits_bytes=6.0, fits=False,
)  # fmt: skip
FOUND = SimpleNamespace(step_s=2.0, memory=MEMORY, trainable_parameters=1000, mfu=0.4, peak_format="bf16")


def read(metric: str, unit: str, **changed: Any) -> float:
    return figure(ROW | {"metric": metric, "unit": unit} | changed, CASE, FOUND)


def test_times_and_rates_in_the_units_of_the_file() -> None:
    tokens = 64 * 2048
    assert read("step_time", "s") == 2.0 and read("step_time_mean", "ms") == 2000.0
    assert read("tokens_per_s", "tokens/s") == tokens / 2.0
    assert read("tokens_per_s_per_gpu", "tokens/s/GPU") == tokens / 2.0 / 8
    assert read("throughput", "samples/s") == 32.0
    assert read("train_time_1024_samples", "s") == 1024 / 64 * 2.0
    assert read("mfu", "%") == pytest.approx(40.0)


def test_model_flops_are_the_files_own_where_its_rate_stands_beside() -> None:
    given = read("model_tflops_per_gpu", "TFLOP/s/GPU", value="500", tokens_beside=1000.0)
    assert given == pytest.approx(0.5 * 64 * 2048 / 2.0 / 8)


def test_memory_is_allocated_reserved_or_steady_as_the_metric_says() -> None:
    assert read("peak_memory_allocated", "GiB") == 8.0 and read("peak_memory_reserved", "GiB") == 16.0
    assert read("memory_allocated_after_step", "B") == 2.0**32
    assert read("memory_nvidia_smi", "MiB") > 16 * 1024
    assert read("memory_params_grads_optimizer", "B") == 10.0 and read("memory_activations", "B") == 11.0
    with pytest.raises(ConfigError, match="GB?"):
        read("max_memory_usage", "GB?")


def test_what_did_not_run_is_predicted_not_to_fit() -> None:
    assert read("did_not_run", "out of memory") == 1.0
    assert kind_of("did_not_run") == "fits" and kind_of("trainable_params") == "count"


def test_quantities_of_whole_runs_are_not_of_a_step() -> None:
    for name in ("time_to_target", "samples_to_target", "eval_time", "adapter_file_size", "dollars"):
        assert not is_simulated(name)


@pytest.mark.slow
def test_every_value_of_a_table_is_a_row(tmp_path: Path) -> None:
    """Two figures of one run, one that no step has, one of a model that nobody knows, and none is dropped."""
    run = ROW | {"framework": "PEFT 0.19", "num_devices": "1", "global_batch": "", "shard": "", "seq_len": "512"}
    rows = [
        run | {"id": "a"},
        run | {"id": "b", "metric": "peak_memory_allocated", "value": "3e9", "unit": "B"},
        run | {"id": "c", "metric": "eval_time"},
        run | {"id": "d", "model": "no-such-model"},
        run | {"id": "e", "value": "0"},
    ]
    path = tmp_path / "runs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    table = validate_training(path)
    assert list(table.columns[:6]) == ["id", "metric", "measured", "predicted", "error", "problem"]
    assert list(table["id"]) == ["a", "b", "c", "d", "e"]
    assert table["problem"][2] == "not simulated" and "no-such-model" in table["problem"][3]
    assert table["predicted"].notna().tolist() == [True, True, False, False, True]
    assert math.isnan(table["error"][4]) and table["case"][0] == table["case"][1]
    assert set(summary(table)["quantity"]) == {"time", "memory"}


def test_a_table_of_another_layout_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    pd.DataFrame([{"id": 1, "speed": 2}]).to_csv(path, index=False)
    with pytest.raises(ConfigError, match="column metric is missing"):
        validate_training(path)


def test_a_source_whose_steps_have_two_micro_batches_gives_the_time_of_one() -> None:
    """fms-acceleration's refs_orca: rows count one micro-batch, its scenario accumulates two."""
    row = ROW | {"source": "foundation-model-stack/fms-acceleration scripts/benchmarks/refs_orca/a100_80gb_pf.csv"}
    row |= {"metric": "step_time", "unit": "s", "global_batch": "16", "grad_accum": "1", "shard": "fsdp full shard"}
    case = case_of(row)
    assert (case.batch, case.accumulate) == (2.0, 2.0) and case.tokens == 2 * 16 * 2048
    assert figure(row, case, FOUND) == 1.0
    assert figure(row | {"metric": "tokens_per_s_per_gpu"}, case, FOUND) == 2 * 16 * 2048 / 2.0 / 8
    assert key_of(row) != key_of(row | {"source": "refs/a100_80gb.csv"})
