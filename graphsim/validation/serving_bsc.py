"""Runs of many adapters on one vLLM server, an hour each: the measurements behind arXiv 2508.08343 and 2602.24044.

The client is `benchmarks/lora/benchmark_serving_by_time.py` of FerranAgulloLopez/GPULLMAdapterOptimization (a5ae1f0):
rates are assigned round robin, gaps are exponential and not rescaled, the run ends when the time is over, and only
answers that are complete by then count. Its machine has 28,232 ports for connections to a server (Linux's default
range): requests beyond this number in flight fail at once. The server (its `launcher.sh`) got `--max-num-seqs` 2048,
`--no-enable-prefix-caching` and its slots; a step's tokens are vLLM's default for a device of less than 70 GiB.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.measured import Row, above_zero, whole
from graphsim.lora.config import LoraConfig
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable, request_table
from graphsim.validation.measured_run import Measured, MeasuredRun, Served
from graphsim.validation.scrapes import Scrapes
from graphsim.validation.stand_in_lengths import chat_lengths
from graphsim.validation.validate import hardware_name

COLUMNS = {"adapter_rates_per_s", "rank_assignment", "max_loras", "ranks", "adapters"}
PORTS = 28232
STEP_TOKENS = 2048
FORK = "earlier fork"
FIRST_LOAD_S = 0.31
"""Seconds to create an adapter at its first request (`--dummy-lora-modules`), while all wait. If one request in 80 is
its adapter's first, the 99th percentile of the time to first token is 0.33 to 0.40 s, at ranks 8 and 16."""

FORK_LOAD_S = 0.18
"""The same for the earlier fork, whose adapters were files, chosen on seven runs by requests per second; 0.15 to 0.25 s
fit about as well. Files of 80 MB took 0.04 to 0.08 s from the page cache and 0.26 s at first (profile `vllm-0.5`)."""

SCRAPES = Scrapes(pause_s=2.0, line_s=12e-6, name_s=0.2e-6)
"""`benchmarks/lora/concurrent_metrics_checker.py` reads `/metrics` every two seconds. The time per line is chosen on
half of the runs, by mean time to first token: 8 to 14 us, and 0.2 to 0.4 us per name, fit about equally well."""

NO_HOURS = "no duration is stated, nor measured"


def bsc_run(row: Row, measured: Measured) -> MeasuredRun:
    """The run of a row. Raises ConfigError for a row that cannot be parsed."""
    fork = "fork" in str(row["framework"]).lower()
    name = str(row["id"])
    seconds = _seconds(row, measured)
    rates = _rates(row)
    ranks = [int(rank) for rank in re.findall(r"\d+", str(row["ranks"]))]
    if not ranks:
        raise ConfigError(f"ranks = {row['ranks']} is not allowed; expected whole numbers")
    slots, buffer = whole(row, "max_loras"), whole(row, "max_lora_rank")
    lora = LoraConfig(
        mixed_ranks=[ranks[i % len(ranks)] for i in range(len(rates))], target_modules="all-linear", max_loras=slots,
        max_lora_rank=buffer,
    )  # fmt: skip
    limits: dict[str, Any] = {
        "max_num_seqs": whole(row, "max_num_seqs"), "max_loras": slots,
        "max_cpu_loras": max(len(rates), slots), "enable_prefix_caching": False,
    }  # fmt: skip
    if not fork:
        limits["max_num_batched_tokens"] = STEP_TOKENS
    prompt, answer = above_zero(row, "mean_input_tokens"), above_zero(row, "mean_output_tokens")
    dummy = "dummy" in str(row["lengths"]).lower()

    def table() -> RequestTable:
        return adapter_traffic(rates, seconds, prompt, answer, fixed=dummy, seed=_seed(name))

    served = Served(
        deployment={
            "model": str(row["model"]), "hardware": hardware_name(str(row["hardware"])), "lora": lora,
            "engine": "vllm-0.5" if fork else "vllm-0.8",
        },
        table=table, limits=limits, first_load_s=FORK_LOAD_S if fork else FIRST_LOAD_S,
        scrapes=None if fork else SCRAPES,
        client=Client(connections=PORTS, refuses=True, cutoff_s=seconds, rescales=False),
    )  # fmt: skip
    offered = float(rates.sum())
    return MeasuredRun(
        id=name, key=name, measured=measured, served=served, judged=FORK if fork else "",
        about={
            "model": str(row["model"]), "engine": str(row["framework"]), "adapters": len(rates), "max_loras": slots,
            "offered": offered, "served_share": served_share(measured, offered),
        },
    )  # fmt: skip


def served_share(measured: Measured, offered: float) -> float:
    """The answered share of the offered load; figures of a growing queue say little about the server's speed."""
    return dict(measured).get("request_throughput", np.nan) / offered if offered else np.nan


def adapter_traffic(
    rates: np.ndarray[Any, Any], seconds: float, prompt: float, answer: float, *, fixed: bool, seed: int
) -> RequestTable:
    """Requests to adapters with random arrivals, each at its own rate; their number is the expected one.

    fixed: whether all lengths are the means; otherwise they are random with these means
    """
    draw = np.random.default_rng(seed)
    count = round(float(rates.sum()) * seconds)
    arrivals = np.sort(draw.uniform(0.0, seconds, count))
    adapters = draw.choice(len(rates), size=count, p=rates / rates.sum())
    if fixed:
        prompts, answers = (np.full(count, round(mean)) for mean in (prompt, answer))
    else:
        prompts, answers = chat_lengths(count, prompt, answer, draw)
    return request_table(arrivals, prompts, answers, adapter=adapters)


def _rates(row: Row) -> np.ndarray[Any, Any]:
    """Requests per second of each adapter; the listed rates are assigned round robin."""
    listed = [float(rate) for rate in re.findall(r"[\d.]+", str(row["adapter_rates_per_s"]))]
    adapters = whole(row, "adapters")
    if not listed or not adapters or min(listed) <= 0:
        raise ConfigError(
            f"adapter_rates_per_s = {row['adapter_rates_per_s']} of {row['adapters']} adapters is not allowed; "
            "expected numbers above 0, and adapters"
        )
    return np.array([listed[i % len(listed)] for i in range(adapters)])


def _seconds(row: Row, measured: Measured) -> float:
    """Seconds during which requests were sent: as stated, or the client's reported duration."""
    if row["duration_s"] == row["duration_s"]:
        return above_zero(row, "duration_s")
    found = dict(measured).get("duration", 0.0)
    if not found > 0:
        raise ConfigError(NO_HOURS)
    return found


def _seed(name: str) -> int:
    digits = re.findall(r"\d+", name)
    return int(digits[-1][-9:]) if digits else 0
