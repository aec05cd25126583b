"""Activity of the devices of saturated servers with measured power: rows of the ML.ENERGY leaderboard.

A row states model, devices, format, how many sequences ran on average, the median time between two tokens, joules per
token and watts. The following is assumed, as rows do not state it:

* The mean prompt of each task (PROMPT_TOKENS). It was read off the rows of dense models: the mean time per token lies
  above the median one by the prompts' share, which 400 tokens of chat explain to 2 %, and 2,500 of code to 4 %. GPQA's
  answers are so long that its prompts do not count.
* Where `ep` is above 1, attention is sharded over all devices and experts are distributed over them.
* Prompts run within decode steps, as in vLLM. With r prompts per step, the median step holds the median of a Poisson
distribution, so the mean step takes longer than the median one by the time of the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from graphsim.compile.step import compile_step
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.energy import Activity, activities_of
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.files.measured import Row, above_zero, whole
from graphsim.hardware import Hardware, device_described, load_hardware
from graphsim.lora.profile import list_engines
from graphsim.models.loading import load_model
from graphsim.ops.precision import Precision, load_precision

PROMPT_TOKENS = {"lm-arena-chat": 400.0, "gpqa": 300.0, "sourcegraph-fim": 2500.0}
"""Mean prompt of each task of ML.ENERGY; other tasks as chat."""

FORMATS = {"bfloat16": "bf16", "float16": "fp16"}

COLUMNS = (
    "hardware", "model", "precision", "gpus", "task", "avg_batch_size", "avg_output_len", "median_itl_ms",
    "energy_per_token_j", "avg_power_w",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRow:
    """The activity of a row's devices, from its measured median time between tokens.

    model: of the catalog
    sequences: that ran on average
    step_s: mean time of a step: the measured median one, plus the prompts' share of the mean
    memory, compute: part of the full bandwidth and of the matrix peak that a device reached over it
    """

    model: str
    hardware: Hardware
    devices: int
    sequences: float
    step_s: float
    memory: float
    compute: float


def power_row(row: Row) -> PowerRow:
    """A row of a table with COLUMNS. Raises ConfigError for unknown names and non-numeric cells."""
    deployment, devices = _deployment(row), whole(row, "gpus")
    sequences, answer = above_zero(row, "avg_batch_size"), above_zero(row, "avg_output_len")
    prompt = PROMPT_TOKENS.get(str(row["task"]), PROMPT_TOKENS["lm-arena-chat"])
    per_step = sequences / answer
    prompt_s = _prompt_s(deployment, sequences, prompt, prompt + answer / 2.0)
    step_s = above_zero(row, "median_itl_ms") * 1e-3 + (per_step - _median_of_poisson(per_step)) * prompt_s
    decode, one_prompt = _activities(deployment, sequences, prompt, answer)
    return PowerRow(
        model=deployment.model.name, hardware=deployment.device, devices=devices, sequences=sequences, step_s=step_s,
        memory=float(decode.memory_s + per_step * one_prompt.memory_s) / step_s,
        compute=float(decode.compute_s + per_step * one_prompt.compute_s) / step_s,
    )  # fmt: skip


def _deployment(row: Row) -> Deployment:
    described = device_described(str(row["hardware"]))
    model, devices = load_model(str(row["model"])), whole(row, "gpus")
    experts = devices if "ep" in row and whole(row, "ep") > 1 else 1
    engine = {"base": _engine(str(row.get("framework", ""))), "notes_only": True}
    return Deployment(
        model, load_hardware(described.name if described else str(row["hardware"])),
        parallelism=Parallelism(tp=devices, ep=experts), precision=_precision(str(row["precision"]), model.precision),
        engine=engine,
    )  # fmt: skip


def _engine(framework: str) -> str:
    """The profile of vLLM's version, or today's."""
    version = re.search(r"vllm\D*(\d+\.\d+)", framework.lower())
    name = f"vllm-{version[1]}" if version else "vllm"
    return name if name in list_engines() else "vllm"


def _precision(name: str, own: Precision | None) -> Precision:
    """The checkpoint's own if it is in that format, else the format for all weights."""
    wanted = FORMATS.get(name, name)
    if own is not None and any(form.name.startswith(wanted) for form in own.of_weights if form.bytes < 2.0):
        return own
    return load_precision(wanted)


def _prompt_s(deployment: Deployment, sequences: float, prompt: float, context: float) -> float:
    """Time that a prompt adds to a decode step."""
    step, rows = compile_step(deployment), sequences * (context + 1.0)
    alone = step(generating=sequences, cache_rows=rows)
    return float(step(prompt_tokens=prompt, generating=sequences, cache_rows=rows) - alone)


def _activities(deployment: Deployment, sequences: float, prompt: float, answer: float) -> tuple[Activity, Activity]:
    """Activity of a decode step, and of one more prompt in it, whose weights are read anyway."""
    batch = np.array([max(1.0, round(sequences)), 1.0, 2.0])
    requests = Requests(batch=batch, input_tokens=round(prompt), output_tokens=round(answer))
    found = activities_of(Inference(deployment=deployment, requests=requests))
    decode, prompts = (
        [np.broadcast_to(part, 3) for part in (activity.memory_s, activity.compute_s)]
        for activity in (found.decode, found.prefill)
    )
    return (
        Activity(memory_s=float(decode[0][0]), compute_s=float(decode[1][0])),
        Activity(memory_s=float(prompts[0][2] - prompts[0][1]), compute_s=float(prompts[1][2] - prompts[1][1])),
    )


def _median_of_poisson(mean: float) -> float:
    """Median of a Poisson distribution: floor(mean + 1/3 - 0.02 / mean) with rare exceptions (Choi, 1994)."""
    return float(np.floor(mean + 1.0 / 3.0 - 0.02 / mean)) if mean > np.log(2.0) else 0.0


def check_columns(columns: set[str], name: str) -> None:
    """Raise ConfigError if a table lacks a column of COLUMNS."""
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise ConfigError(f"{name}: column {missing[0]} is missing; needed are {', '.join(COLUMNS)}")
