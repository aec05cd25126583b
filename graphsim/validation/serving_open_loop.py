"""Tables of `bench_serving` at stated rates: SGLang on H200 with its cliff, vLLM and its ROCm build with Llama-405B.

SGLang's client draws lengths from numpy's generator of seed 1, uniform up to the stated ones (range ratio 0), inputs
first, which reproduces the sums of the table exactly. Its gaps are exponential and not rescaled. Of ShareGPT texts only
the sums are known; they are replaced by chats of the stand-in's distribution with the same sums.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from math import inf, isinf

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.files.measured import Row, number, whole
from graphsim.lora.config import LoraConfig
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable, request_table
from graphsim.validation.figures import Values
from graphsim.validation.measured_run import Measured, MeasuredRun, Served
from graphsim.validation.run_figures import is_run_figure
from graphsim.validation.stand_in_lengths import chat_lengths
from graphsim.validation.validate import hardware_name

SGLANG_COLUMNS = {"random_input_len", "random_output_len", "random_range_ratio", "request_rate", "dataset_name"}
DSTACK_COLUMNS = {"gpu", "request_rate", "num_prompts", "max-num-seqs", "max-num-batched-tokens", "filename"}
CLIENT_SEED = 1
OLD_CHUNK = 8192
"""SGLang 0.3 and 0.4: `--chunked-prefill-size` by default, 16384 from 2025 on with much memory."""
OLD_SHARES_FROM, OLD_SHARES = (1, 2, 4, 8, 16), (0.88, 0.87, 0.85, 0.81, 0.79)
"""SGLang 0.4.0, python/sglang/srt/server_args.py: `--mem-fraction-static` by default, by least number of devices."""

_DEVICES = re.compile(r"(\d+)x(\w+)\s+(\d+)(FP8)-(\w+)")


def figures_of(row: Row) -> Measured:
    """The columns of a row with figures."""
    return tuple(
        (str(name), number(row, str(name))) for name, value in row.items() if _is_told(str(name)) and value == value
    )


def _is_told(name: str) -> bool:
    return is_run_figure(name) or name == "request_goodput"


def sglang_run(row: Row) -> MeasuredRun:
    """The run of a row of SGLang's open loop. Raises ConfigError for a row that cannot be parsed."""
    name, rate, count = str(row["id"]), float(row["request_rate"]), whole(row, "completed")
    sums = number(row, "total_input_tokens") / count, number(row, "total_output_tokens") / count
    stated = whole(row, "random_input_len"), whole(row, "random_output_len")
    ratio, chats = number(row, "random_range_ratio"), str(row["dataset_name"]) != "random"

    def table() -> RequestTable:
        draw = np.random.default_rng(CLIENT_SEED)
        prompts, answers = chat_lengths(count, *sums, draw) if chats else sglang_lengths(count, *stated, ratio)
        return request_table(arrivals_at(rate, count, draw), prompts, answers)

    deployment = {
        "model": str(row["model"]), "hardware": hardware_name(str(row["hardware"])), "engine": "sglang-0.4",
        "precision": str(row["precision"]), "parallelism": Parallelism(tp=whole(row, "tp")),
    }  # fmt: skip
    limits = {
        "prefix_cache": "radix cache off" not in str(row["framework"]), "max_num_batched_tokens": OLD_CHUNK,
        "mem_fraction_static": OLD_SHARES[bisect_right(OLD_SHARES_FROM, whole(row, "tp")) - 1],
    }  # fmt: skip
    return MeasuredRun(
        id=name, key=name, measured=figures_of(row),
        served=Served(deployment=deployment, table=table, limits=limits, client=Client(rescales=False)),
        about={"engine": "sglang", "model": str(row["model"]), "rate": rate, "dataset": str(row["dataset_name"])},
    )  # fmt: skip


def sglang_lengths(count: int, prompt: int, answer: int, ratio: float) -> tuple[Values, Values]:
    """Prompt and answer lengths of `--dataset-name random`, as drawn by the client of 2024 and 2025."""
    draw = np.random.RandomState(CLIENT_SEED)
    prompts = draw.randint(max(int(prompt * ratio), 1), prompt + 1, size=count)
    return prompts, np.maximum(draw.randint(int(answer * ratio), answer + 1, size=count), 1)


def arrivals_at(rate: float, count: int, draw: np.random.Generator) -> Values:
    """Seconds at which requests are sent: the first at once, then exponential gaps; all at once at an infinite rate."""
    if isinf(rate):
        return np.zeros(count)
    return np.concatenate([[0.0], np.cumsum(draw.exponential(1.0 / rate, count - 1))])


def dstack_run(row: Row, place: int) -> MeasuredRun:
    """The run of a row of Llama-405B's open loop. Raises ConfigError for a row that cannot be parsed."""
    name = str(row.get("id", place))
    told = _DEVICES.search(str(row["gpu"]))
    if not told:
        raise ConfigError(f"gpu = {row['gpu']!r} is not understood")
    if int(told[3]) > 1:
        return MeasuredRun(id=name, measured=figures_of(row), problem="not simulated: two servers share the requests")
    count, rate = whole(row, "num_prompts"), number(row, "request_rate")
    means = number(row, "total_input_tokens") / count, number(row, "total_output_tokens") / count

    def table() -> RequestTable:
        draw = np.random.default_rng(0)
        prompts, answers = chat_lengths(count, *means, draw)
        return request_table(arrivals_at(rate, count, draw), prompts, answers)

    limits: dict[str, object] = {"max_num_seqs": whole(row, "max-num-seqs")}
    if str(row["max-num-batched-tokens"]).isdigit():
        limits["max_num_batched_tokens"] = whole(row, "max-num-batched-tokens")
    if str(row["enable-chunked-prefill"]).upper() == "TRUE":
        limits["order"], limits["chunked"] = "mixed", True
    deployment = {
        "model": "Llama-3.1-405B", "hardware": hardware_name(told[2]), "engine": "vllm-0.7", "precision": "fp8",
        "parallelism": Parallelism(tp=int(told[1])),
    }  # fmt: skip
    return MeasuredRun(
        id=name, key=name, measured=figures_of(row),
        served=Served(deployment=deployment, table=table, limits=limits, client=Client(rescales=False)),
        judged="steps in multiples" if whole(row, "num-scheduler-step") > 1 else "",
        about={"engine": "vllm V0, late 2024", "model": "Llama-3.1-405B", "rate": rate, "hardware": str(row["gpu"])},
    )  # fmt: skip


_STARVED = re.compile(r"(\d+) adapters uniform, max_loras_per_batch (\d+), max_loaded_loras (\d+)")
_TRAFFIC = re.compile(r"up to (\d+) in / (\d+) out, (\d+) prompts, rate ([\d.]+)/s")
THREADS_COLUMNS = {"workload", "lora", "metric", "value", "source"}
NOT_TOLD = "not simulated: the thread does not tell what ran"
RANK = 16
"""Assumed rank of adapters, which the thread does not state."""


def starved_run(row: Row, measured: Measured) -> MeasuredRun:
    """The run of a row of a thread on more adapters than slots (SGLang before its drainer). NOT_TOLD for other rows."""
    adapters, traffic = _STARVED.search(str(row["lora"])), _TRAFFIC.search(str(row["workload"]))
    if not adapters or not traffic or not is_run_figure(str(row["metric"])):
        return MeasuredRun(id=str(row["id"]), measured=measured, problem=NOT_TOLD)
    registered, slots, loaded = (int(number) for number in adapters.groups())
    prompt, answer, count = (int(number) for number in traffic.groups()[:3])
    rate = float(traffic[4])

    def table() -> RequestTable:
        draw = np.random.default_rng(CLIENT_SEED)
        prompts, answers = sglang_lengths(count, prompt, answer, 0.0)
        which = draw.integers(0, registered, count)
        return request_table(arrivals_at(rate, count, draw), prompts, answers, adapter=which)

    lora = LoraConfig(rank=RANK, max_loras=slots, target_modules="all-linear")
    deployment = {
        "model": str(row["model"]), "hardware": hardware_name(str(row["hardware"])), "engine": "sglang",
        "precision": str(row["precision"]), "lora": lora,
    }  # fmt: skip
    limits = {"max_loras": slots, "max_cpu_loras": loaded, "drain_after_s": inf}
    return MeasuredRun(
        id=str(row["id"]), key=str(row["id"]), measured=measured, judged="",
        served=Served(deployment=deployment, table=table, limits=limits, client=Client(rescales=False), loaded=True),
        about={"engine": "sglang", "model": str(row["model"]), "adapters": registered, "max_loras": slots},
    )  # fmt: skip
