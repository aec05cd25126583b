"""S-LoRA's own runs on an A10G: requests to many adapters, with bursty arrivals.

The client draws everything from numpy's generator of seed 42 (`benchmarks/trace.py`, `run_exp.py` of S-LoRA c1ddf48),
so that its trace is known exactly: adapters by a power distribution, uniform at alpha = 1, and gaps of all adapters
together by a gamma distribution. The server (`launch_server.py`) has a pool of 14,000 tokens, which also holds the
adapters in use. Latencies are over all answers; `strip_throughput` excludes ten seconds at both ends.
"""

from __future__ import annotations

import re

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.measured import Row, above_zero, number, whole
from graphsim.lora.config import LoraConfig
from graphsim.traffic.client import Client
from graphsim.traffic.table import BASE, RequestTable, request_table
from graphsim.validation.measured_run import Measured, MeasuredRun, Served
from graphsim.validation.run_figures import Outcome, is_run_figure, run_figure
from graphsim.validation.validate import hardware_name

COLUMNS = {"rate_req_s", "popularity", "ranks", "input_tokens", "output_tokens", "adapters"}
SEED = 42
POOL_TOKENS = 14_000
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
WARM_UP_S = 10.0
OTHER = {
    "abort": "not simulated: the server gives up requests that would be late",
    "bmm": "not simulated: kernels that pad each adapter's rows",
    "no_mem": "not simulated: adapters outside the pool of the cache",
    "vllm": "not simulated: vLLM with weights merged, one server per adapter",
    "ablation_mem": "",
}
"""Variants of the server that are not simulated, by their names in the artifact, and the reasons."""

SCHEDULERS = ("pets", "lifo")
"""Variants that differ only in the order of the queue; judged separately."""

REAL = "not simulated: the trace of LMSYS Arena is not public"
_RANGE = re.compile(r"U\[(\d+), ?(\d+)\]")


def slora_run(row: Row, measured: Measured) -> MeasuredRun:
    """The run of a row. Raises ConfigError for a row that cannot be parsed."""
    name, variant = str(row["id"]), str(row["framework"]).rpartition(":")[2].strip()
    about = {"variant": variant, "adapters": str(row["adapters"]), "rate": row["rate_req_s"]}
    if variant == "ablation_mem":
        variant = "slora" if str(row["source"]).endswith("_dm.jsonl") else "no_mem"
    problem = REAL if "LMSYS" in str(row["arrival"]) else OTHER.get(variant, "")
    if problem:
        return MeasuredRun(id=name, measured=measured, problem=problem, about=about)
    prompts, answers = _range(row, "input_tokens"), _range(row, "output_tokens")
    cv, alpha = (_told(row, *field) for field in (("arrival", "cv"), ("popularity", "alpha")))
    rate, seconds, adapters = above_zero(row, "rate_req_s"), above_zero(row, "duration_s"), whole(row, "adapters")
    ranks = [int(rank) for rank in re.findall(r"\d+", str(row["ranks"]))]
    lora = None
    if adapters:
        every = [ranks[i % len(ranks)] for i in range(adapters)]
        lora = LoraConfig(mixed_ranks=every, target_modules=TARGETS, max_loras=adapters, max_lora_rank=max(ranks))

    def table() -> RequestTable:
        return bursts(adapters, alpha, rate, cv, seconds, prompts, answers)

    served = Served(
        deployment={
            "model": str(row["model"]), "hardware": hardware_name(str(row["hardware"])), "engine": "slora",
            "precision": "bf16", "lora": lora,
        },
        table=table, limits={"kv_tokens": POOL_TOKENS}, client=Client(rescales=False), loaded=False,
    )  # fmt: skip
    return MeasuredRun(
        id=name, key=name, measured=measured, served=served, about=about | {"cv": cv, "alpha": alpha},
        judged=f"order of {variant}" if variant in SCHEDULERS else "",
    )  # fmt: skip


def bursts(
    adapters: int, alpha: float, rate: float, cv: float, seconds: float, prompts: tuple[int, int],
    answers: tuple[int, int],
) -> RequestTable:  # fmt: skip
    """The client's requests, drawn in its order from numpy's legacy generator, whose stream is frozen."""
    draw = np.random.RandomState(SEED)
    count = int(rate * seconds)
    chosen = (draw.power(alpha, count) * max(adapters, 1)).astype(np.int64)
    inputs, outputs = draw.randint(*prompts, count), draw.randint(*answers, count)
    arrivals = np.cumsum(draw.gamma(1.0 / cv**2, cv**2 / rate, count))
    return request_table(arrivals, inputs, outputs, adapter=chosen if adapters else np.full(count, BASE))


def slora_figure(found: Outcome, run: MeasuredRun, name: str) -> tuple[float, str]:
    """A prediction and a problem, one of which is set."""
    count = len(found.sent_s)
    if not count:
        return np.nan, "no request is answered"
    duration = float(found.finished_s.max())  # the client's clock starts before the first gap
    seconds = {
        "avg_latency": found.e2e_s, "avg_first_token_latency": found.ttft_s,
        "avg_per_token_latency": found.e2e_s / (found.input_tokens + found.output_tokens),
        "avg_per_output_token_latency": found.e2e_s / found.output_tokens,
    }  # fmt: skip
    if name in seconds:
        return float(seconds[name].mean()), ""
    if name == "total_time":
        return duration, ""
    if name == "throughput":
        return count / duration, ""
    if name == "strip_throughput":
        warm = int(float(run.about["rate"]) * WARM_UP_S)
        return (count - 2 * warm) / (duration - 2 * WARM_UP_S), ""
    if name == "num_abort":
        return 0.0, ""
    return (run_figure(found, name), "") if is_run_figure(name) else (np.nan, "not simulated")


def _range(row: Row, name: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(str(row[name]))
    if not found:
        raise ConfigError(f"{name} = {row[name]!r} is not understood; expected U[least, most]")
    return int(found[1]), int(found[2])


def _told(row: Row, column: str, name: str) -> float:
    found = re.search(rf"{name}=([\d.]+)", str(row[column]))
    if not found:
        raise ConfigError(f"{column} = {row[column]!r} does not tell {name}")
    return number({name: found[1]}, name)
