"""Open loop at stated rates on vLLM 0.15: the runs for training and evaluating BLIS.

The client is inference-perf. It did not run the requested workload (`profile.yaml`: 11 system prompts of 4 users each,
chats of several turns): `results/config.yaml` of the same runs (inference-sim/training c4f0340) shows that its version
did not know these keys and used its defaults, 10 groups of 10 prompts without turns. So the requests cycle through 100
prompts, each a system prompt of its group and a question. The mean prompts of the tables agree (591.6 tokens where 566
were requested, without longer ones among thousands). Gaps are exponential, scaled to a stage's duration
(`ConstantLoadTimer`); a stage begins when the previous one is answered. aiohttp times out after 300 s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.files.measured import Row, whole
from graphsim.traffic.client import Client
from graphsim.traffic.table import Prefixes, RequestTable, request_table
from graphsim.validation.measured_run import Measured, MeasuredRun, Served
from graphsim.validation.validate import hardware_name

COLUMNS = {"arrival", "lengths", "max_num_seqs", "max_num_batched_tokens", "kv_blocks", "model", "tp", "note"}
GROUPS, PROMPTS_OF_GROUP = 10, 10
TIMEOUT_S = 300.0
BETWEEN_STAGES_S = 15.0
"""Seconds for the last answers of a stage and a pause; a larger value has no effect if the server keeps up."""

GREEDY = ("mixtral",)
"""Models whose `generation_config.json` does not truncate the distribution. The client sets no sampling parameters, and
vLLM uses those of the file: top_p 0.9 for Llama, top_p 0.95 and top_k 20 for Qwen3."""

RETOKENIZED = 1.046
"""Tokens per requested token of a random prompt that is sent as text: 1.0453 to 1.0478 in 30 runs."""

FIRST, FAILED = "first requests", "failed requests"
BLOCK_TOKENS = 16
_LENGTHS = re.compile(r"system (\d+) \+ question (\d+) in, (\d+) out")
_STAGE = re.compile(r"([\d.]+)/s for ([\d.]+) s")


def blis_runs(rows: Sequence[Row], measured: Mapping[str, Measured]) -> list[MeasuredRun]:
    """The runs of a table; a stage is a part of its run, whose stages one of its rows states."""
    stages = {str(row["id"]): _STAGE.findall(str(row["arrival"])) for row in rows}
    found = []
    for row in rows:
        name = str(row["id"])
        try:
            found.append(_run(row, measured.get(name, ()), stages))
        except ConfigError as error:
            found.append(MeasuredRun(id=name, measured=measured.get(name, ()), problem=str(error)))
    return found


def _run(row: Row, measured: Measured, stages: Mapping[str, list[tuple[str, str]]]) -> MeasuredRun:
    name = str(row["id"])
    run = re.sub(r"-s(?:all|\d+)(-first\d+)?$", "", name)
    lengths = _LENGTHS.search(str(row["lengths"]))
    told = stages.get(f"{run}-sall") or stages[name]
    if not lengths or not told:
        raise ConfigError(f"lengths = {row['lengths']!r}, arrival = {row['arrival']!r} are not understood")
    plan = tuple((float(rate), float(seconds)) for rate, seconds in told)
    system, question, answer = (int(number) for number in lengths.groups())
    tp = whole(row, "tp")
    limits: dict[str, Any] = {
        "max_num_seqs": whole(row, "max_num_seqs"), "max_num_batched_tokens": whole(row, "max_num_batched_tokens"),
        "max_model_len": int(re.findall(r"\d+", str(row["max_model_len"]))[0]),
    }  # fmt: skip
    if row["kv_blocks"] == row["kv_blocks"]:
        limits["kv_tokens"] = BLOCK_TOKENS * whole(row, "kv_blocks")
    elif row["gpu_mem_util"] == row["gpu_mem_util"]:
        limits["gpu_memory_utilization"] = float(row["gpu_mem_util"])
    deployment = {
        "model": str(row["model"]), "hardware": hardware_name(str(row["hardware"])), "precision": "bf16",
        "engine": "vllm-0.15", "parallelism": Parallelism(tp=tp),
    }  # fmt: skip

    def table() -> RequestTable:
        return staged_traffic(plan, system, question, answer)

    return MeasuredRun(
        id=name, measured=measured, judged=_judged(row, measured), of=_part(name, plan),
        key=(str(row["model"]), deployment["hardware"], tp, plan, lengths.groups(), tuple(limits.items())),
        served=Served(
            deployment=deployment, table=table, limits=limits, client=Client(timeout_s=TIMEOUT_S, rescales=True),
            samples=not str(row["model"]).rpartition("/")[2].lower().startswith(GREEDY),
        ),
        about={"model": str(row["model"]), "hardware": str(row["hardware"]), "tp": tp, "answer_tokens": answer},
    )  # fmt: skip


def _judged(row: Row, measured: Measured) -> str:
    if "first" in str(row["note"]):
        return FIRST
    return FAILED if dict(measured).get("failed", 0.0) > 0 else ""


def _part(name: str, plan: tuple[tuple[float, float], ...]) -> tuple[int, int] | None:
    """The part of the requests that the figures cover."""
    counts = np.cumsum([0, *(round(rate * seconds) for rate, seconds in plan)])
    if first := re.search(r"-first(\d+)$", name):
        return 0, min(int(first[1]), int(counts[-1]))
    if stage := re.search(r"-s(\d+)$", name):
        at = int(stage[1])
        return (int(counts[at]), int(counts[at + 1])) if at + 1 < len(counts) else None
    return None


def staged_traffic(
    plan: Sequence[tuple[float, float]], system: int, question: int, answer: int, seed: int = 0
) -> RequestTable:
    """Requests of stages of (requests per second, seconds), which cycle through prompts with shared prefixes."""
    draw = np.random.default_rng(seed)
    arrivals, start = [], 0.0
    for rate, seconds in plan:
        gaps = draw.exponential(1.0, round(rate * seconds))
        arrivals.append(start + np.cumsum(gaps) * (seconds / gaps.sum()))
        start += seconds + BETWEEN_STAGES_S
    sent = np.concatenate(arrivals)
    prompts = GROUPS * PROMPTS_OF_GROUP
    which = draw.permutation(prompts)[np.arange(len(sent)) % prompts]
    shared, own = round(RETOKENIZED * system), round(RETOKENIZED * question)
    prefixes = Prefixes(
        start=2 * np.arange(len(sent) + 1),
        segment=np.stack([which // PROMPTS_OF_GROUP, GROUPS + which], axis=1).ravel(),
        end=np.tile([shared, shared + own], len(sent)),
    )
    inputs = np.full(len(sent), shared + own)
    return request_table(sent, inputs, np.full(len(sent), answer), prefixes=prefixes)
