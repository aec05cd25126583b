"""Published times of merging, switching and loading adapters compared with the estimate: `graphsim validate lifecycle`.

Only rows with a known device, engine and model; values that a row omits come from its note or are stated here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.analysis.lifecycle import Lifecycle, lifecycle
from graphsim.files.measured import Row, above_zero, each, read_facts, whole
from graphsim.lora.config import LoraConfig

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "hardware", "framework", "model", "rank", "metric", "value", "unit", "note")
METRICS = {
    "merge_switch_cost": "switch_s",
    "cpu_to_gpu_adapter_activation_time": "load_s",
    "disk_to_cpu_adapter_load_time": "disk_s",
}
"""Published metrics and the estimate's figure for each."""

ENGINES = {"vLLM V1": "vllm-0.8", "vLLM 0.5": "vllm-0.5", "dLoRA": "reference"}
DEVICES = {"1x H100 64GB": "h100-64gb", "A100": "a100-sxm-80gb"}
TARGETS = "all-linear"
"""Adapters of dLoRA and the H100 runs target all linears of a layer, judging by their sizes."""
UNITS = {"s": 1.0, "ms": 1e-3}


def validate_lifecycles(path: str | Path) -> pd.DataFrame:
    """One row per published time that can be simulated: published, predicted, error.

    Raises ConfigError for a file that cannot be read or lacks columns.
    """
    frame = read_facts(path, "published figures", COLUMNS)
    return each(frame[frame["metric"].isin(list(METRICS))], path, _row)


def _row(row: Row) -> dict[str, Any] | None:
    engine, device = _of(row["framework"], ENGINES), _of(row["hardware"], DEVICES)
    if engine is None or device is None or row["unit"] not in UNITS:
        return None
    model = re.sub(r"\s*\(.*\)", "", str(row["model"])).lower()
    rank = 16 if row["rank"] != row["rank"] else whole(row, "rank")
    found = lifecycle(model, device, LoraConfig(rank=rank, target_modules=TARGETS), engine=engine)
    seconds = _figure(found, METRICS[row["metric"]], str(row["note"]))
    published = above_zero(row, "value") * UNITS[row["unit"]]
    return {
        "id": row["id"], "engine": engine, "hardware": device, "model": model, "rank": rank, "metric": row["metric"],
        "note": str(row["note"])[:40], "published_ms": published * 1e3, "predicted_ms": seconds * 1e3,
        "error": seconds / published - 1.0,
    }  # fmt: skip


def _figure(found: Lifecycle, name: str, note: str) -> float:
    if name == "disk_s":
        name = "cold_disk_s" if "first" in note else "warm_disk_s"
    return float(getattr(found, name))


def _of(text: Any, names: dict[str, str]) -> str | None:
    return next((name for start, name in names.items() if str(text).startswith(start)), None)
