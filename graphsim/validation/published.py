"""Published figures of serving with adapters compared with the estimate: `graphsim validate published`.

The server runs as many sequences as its KV cache holds, by the footprint; prompts of new requests interrupt the steps.
So the published time per token without adapters is the base, to which the estimate adds the cost of adapters:

    predicted = published without adapters + (step with k adapters - step with none)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.analysis.slots import kv_tokens_left
from graphsim.files.measured import Row, above_zero, each, read_facts, whole
from graphsim.lora.config import LoraConfig
from graphsim.simulation import simulate

if TYPE_CHECKING:
    import pandas as pd

METRIC = "median_inter_token_latency"
ENGINES = {"vLLM 0.5": "vllm-0.5"}
DEVICES = {"1x H100 64GB": "h100-64gb"}


def validate_published(path: str | Path) -> pd.DataFrame:
    """One row per published time per token with adapters: published, predicted, and errors of the total and the part.

    Raises ConfigError for a file that cannot be read or lacks columns.
    """
    frame = read_published(path)
    return each(frame[(frame["metric"] == METRIC) & frame["base_value_without_lora"].notna()], path, _row)


NEEDED = (
    "metric", "framework", "hardware", "model", "base_value_without_lora", "note", "rank", "input_len", "output_len",
    "adapters_active", "value", "unit",
)  # fmt: skip
"""Columns of a file of published figures."""


def read_published(path: str | Path) -> pd.DataFrame:
    """A file of published figures. Raises ConfigError if it cannot be read or lacks columns."""
    return read_facts(path, "published figures", NEEDED)


def _row(row: Row) -> dict[str, Any] | None:
    engine, device = _of(row["framework"], ENGINES), _of(row["hardware"], DEVICES)
    slots = re.search(r"max_loras=(\d+)", str(row["note"]))
    distinct = re.search(r"per batch ([\d.]+)", str(row["note"]))
    if engine is None or device is None or not slots or not distinct:
        return None
    rank, prompt, generated = (whole(row, name) for name in ("rank", "input_len", "output_len"))
    lora = LoraConfig(rank=rank, target_modules="all-linear", max_loras=int(slots.group(1)), max_lora_rank=rank)
    tokens = kv_tokens_left(row["model"], device, lora, engine=engine)
    batch = max(1, int(tokens / (prompt + generated / 2.0)))

    def step_ms(adapters: float) -> float:
        wanted = LoraConfig(
            rank=rank, target_modules="all-linear", max_loras=lora.max_loras, max_lora_rank=rank,
            active_adapters=adapters,
        )  # fmt: skip
        found = simulate(row["model"], device, batch, prompt, generated, lora=wanted, engine=engine)
        return float(found.tpot_s) * 1e3

    without, measured = above_zero(row, "base_value_without_lora"), above_zero(row, "value")
    added = step_ms(float(distinct.group(1))) - step_ms(0.0)
    return {
        "engine": engine, "model": row["model"], "rank": rank, "input": prompt, "batch": batch,
        "distinct": float(distinct.group(1)), "without_ms": without, "published_ms": measured,
        "predicted_ms": without + added, "error": (without + added) / measured - 1.0,
        "published_added_ms": measured - without, "predicted_added_ms": added,
    }  # fmt: skip


def _of(text: Any, names: dict[str, str]) -> str | None:
    return next((name for start, name in names.items() if str(text).startswith(start)), None)
