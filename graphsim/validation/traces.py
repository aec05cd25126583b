"""Published requests per second of S-LoRA on an arrival trace, compared with the estimate: `graphsim validate traces`.

Its pool holds both the KV cache and the adapters in use, so that adapters displace sequences (S-LoRA, arXiv 2311.03285,
section 5.1): rank r on q, k, v and o takes the memory of 4 r tokens. Capacity is that of the largest batch that fits in
the pool, and the last requests finish after the trace has ended:

    requests / s = offered · T / (T · max(1, offered / capacity) + longest answer · TPOT)
    capacity = 1 / (prompt of one request + answer · TPOT(batch) / batch)

The trace and the pool: S-LoRA c1ddf488, `benchmarks/exp_suite.py` (five minutes, lengths from 8 to 512, both uniform)
and `benchmarks/launch_server.py` (14,000 tokens on an A10G). Times to the first token are left out, as they are
mostly waits in the queue.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError
from graphsim.files.measured import Row, above_zero, each, whole
from graphsim.lora.config import LoraConfig
from graphsim.lora.popularity import expected_distinct, uniform
from graphsim.simulation import simulate
from graphsim.validation.published import read_published

if TYPE_CHECKING:
    import pandas as pd

FRAMEWORK, DEVICES, MODELS = "S-LoRA", {"1x A10G-24GB": "a10g"}, {"Llama-7B": "llama-2-7b"}
"""Llama 7B has the shapes of Llama 2 7B."""

POOL_TOKENS, TRACE_S = {"a10g": 14_000.0}, 300.0
LENGTHS = re.compile(r"U\[(\d+),(\d+)\]")
OFFERED = re.compile(r"offered ([\d.]+) req/s")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def validate_traces(path: str | Path) -> pd.DataFrame:
    """One row per published rate: requests per second published and predicted, and the error.

    Raises ConfigError for a file that cannot be read or lacks columns.
    """
    frame = read_published(path)
    chosen = frame[(frame["framework"] == FRAMEWORK) & (frame["metric"] == "throughput") & (frame["unit"] == "req/s")]
    return each(chosen, path, _row)


def _row(row: Row) -> dict[str, Any] | None:
    device, model = DEVICES.get(row["hardware"]), MODELS.get(row["model"])
    offered = OFFERED.search(str(row["note"]))
    prompts, answers = (LENGTHS.fullmatch(str(row[name])) for name in ("input_len", "output_len"))
    if device is None or model is None or not offered or not prompts or not answers:
        return None
    rate, adapters = float(offered.group(1)), whole(row, "adapters_active")
    ranks = [int(rank) for rank in re.findall(r"\d+", str(row["rank"]))]
    if not ranks:
        raise ConfigError(f"rank = {row['rank']} is not allowed; expected whole numbers")
    prompt, answer = (_mean(lengths) for lengths in (prompts, answers))
    batch = _batch(POOL_TOKENS[device], prompt + answer / 2.0, adapters, sum(ranks) / len(ranks))
    distinct = float(expected_distinct(uniform(adapters), batch))

    def times(sequences: int, active: float) -> tuple[float, float]:
        lora = LoraConfig(mixed_ranks=ranks, target_modules=TARGETS, active_adapters=active)
        found = simulate(model, device, sequences, round(prompt), round(answer), lora=lora, engine="slora")
        return float(found.ttft_s), float(found.tpot_s)

    prompt_s, tpot_s = times(1, 1.0)[0], times(batch, distinct)[1]
    capacity = 1.0 / (prompt_s + answer * tpot_s / batch)
    predicted = rate * TRACE_S / (TRACE_S * max(1.0, rate / capacity) + float(answers.group(2)) * tpot_s)
    published = above_zero(row, "value")
    return {
        "engine": "slora", "model": model, "hardware": device, "adapters": adapters, "rank": row["rank"],
        "offered": rate, "batch": batch, "distinct": distinct, "tpot_ms": tpot_s * 1e3, "capacity": capacity,
        "published": published, "predicted": predicted, "error": predicted / published - 1.0,
    }  # fmt: skip


def _mean(lengths: re.Match[str]) -> float:
    return (int(lengths.group(1)) + int(lengths.group(2))) / 2.0


def _batch(pool: float, tokens: float, adapters: int, rank: float) -> int:
    """The largest number of sequences whose tokens and adapters fit in the pool."""
    sequences = 1
    while (sequences + 1) * tokens + 4.0 * rank * expected_distinct(uniform(adapters), sequences + 1) <= pool:
        sequences += 1
    return sequences
