"""Traces that LLMServingSim's authors replayed on vLLM 0.19: figures of all requests, and the engine's log by second.

Each request's arrival, lengths and measured times are next to the tables, as `…/traces/ID.csv`. Two data-parallel
engines receive requests in turn; one of them is simulated, with its half.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.files.measured import Row, number, read_facts, whole
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable, request_table
from graphsim.validation.measured_run import Measured, MeasuredRun, Served
from graphsim.validation.run_figures import Outcome
from graphsim.validation.validate import hardware_name

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {"num_gpu_blocks", "max_num_seqs", "max_num_batched_tokens", "requests", "extra", "model"}
SERIES_COLUMNS = {"id", "t", "prompt_throughput", "gen_throughput", "running", "waiting", "kv_cache_pct"}
SERIES = ("prompt_throughput", "gen_throughput", "running", "waiting", "kv_cache_pct")
BLOCK_TOKENS = 16
TRACE = ("arrival_s", "input_len", "output_len")


def trace_run(row: Row, measured: Measured, beside: Path) -> MeasuredRun:
    """The run of a row.

    beside: the folder of its table
    Raises ConfigError if its trace is not found.
    """
    name = str(row["id"])
    path = next((p for p in (beside / f"{name}.csv", beside.parent / "traces" / f"{name}.csv") if p.is_file()), None)
    if path is None:
        raise ConfigError(f"not simulated: its trace {name}.csv lies neither beside the table nor in ../traces")
    extra = json.loads(str(row["extra"])) if row["extra"] == row["extra"] else {}
    engines, tp = int(extra.get("data_parallel_size", 1)), whole(row, "tp")
    width = engines * tp if extra.get("enable_expert_parallel") else 1
    limits: dict[str, Any] = {
        name: whole(row, name)
        for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len")
        if row[name] == row[name]
    }
    if row["num_gpu_blocks"] == row["num_gpu_blocks"]:
        limits["kv_tokens"] = BLOCK_TOKENS * whole(row, "num_gpu_blocks")

    def table() -> RequestTable:
        trace = read_facts(path, "a trace", TRACE).iloc[::engines]
        return request_table(trace["arrival_s"], trace["input_len"], trace["output_len"])

    parallelism = Parallelism(tp=tp, ep=width, dp=engines) if engines > 1 else Parallelism(tp=tp)
    deployment = {
        "model": str(row["model"]), "hardware": hardware_name(str(row["hardware"])), "engine": "vllm-0.15",
        "parallelism": parallelism,
    }  # fmt: skip
    return MeasuredRun(
        id=name, key=name, measured=measured,
        served=Served(deployment=deployment, table=table, limits=limits, client=Client(rescales=False)),
        about={"model": str(row["model"]), "hardware": str(row["hardware"]), "engines": engines},
    )  # fmt: skip


def series(found: Outcome, run: MeasuredRun, seconds: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """SERIES at some seconds of the engine's log: rates over the preceding second, counts at its end."""
    rows = found.run.steps
    ends = rows[:, 0] + rows[:, 1]
    engines = float(run.about["engines"])

    def rate(tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        grid = np.concatenate([[0.0], ends])
        total = np.interp(np.stack([seconds - 1.0, seconds]), grid, np.concatenate([[0.0], np.cumsum(tokens)]))
        return np.asarray(engines * (total[1] - total[0]))

    at = np.minimum(np.searchsorted(rows[:, 0], seconds, side="right") - 1, len(rows) - 1)
    busy = (at >= 0) & (seconds <= ends[at])
    return {
        "prompt_throughput": rate(rows[:, 5]), "gen_throughput": rate(rows[:, 3] * rows[:, 2]),
        "running": np.where(busy, engines * (rows[at, 3] + rows[at, 4]), 0.0),
        "waiting": np.where(busy, engines * rows[at, 8], 0.0),
        "kv_cache_pct": np.where(busy, 100.0 * rows[at, 7] / found.run.kv_blocks, 0.0),
    }  # fmt: skip


def seconds_of(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    """The time of each line of a run's log, in seconds."""
    return np.array([number(row, "t") for row in frame.to_dict("records")])
