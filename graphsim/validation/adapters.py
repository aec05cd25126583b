"""Measured adapter serving and slots against the estimate: `graphsim validate lora` and `graphsim validate slots`.

A server with `batch` running sequences requests `adapters` adapters uniformly at random: a step has
adapters · (1 - (1 - 1/adapters)^batch) distinct ones (arXiv 2508.08343, 2602.24044).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.analysis.slots import footprint
from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import measured, number, read_facts, whole
from graphsim.lora.config import LoraConfig
from graphsim.lora.popularity import expected_distinct, uniform
from graphsim.simulation import simulate

if TYPE_CHECKING:
    import pandas as pd

SERVING = (
    "model", "framework", "device", "max_loras", "max_lora_rank", "rank", "batch", "input_tokens", "output_tokens",
    "adapters", "mean_itl_ms",
)  # fmt: skip
SLOTS = ("model", "framework", "max_loras", "max_lora_rank", "model_loading_gib", "kv_cache_tokens")

DEVICES = {"H100 64 GB": "h100-64gb"}
ENGINES = {"vllm 2025-05": "vllm-0.8"}
SLOTS_DEVICE = "h100-64gb"
"""The device on which slots were measured."""


def validate_adapter_serving(path: str | Path) -> pd.DataFrame:
    """Measured time per token of each row with the prediction, its error, and the error of the ratio to no LoRA.

    A row that cannot be simulated states the reason.
    Raises ConfigError for a file that cannot be read or lacks columns.
    """
    table = _each(_read(path, SERVING, ["mean_itl_ms"]), _serve, ("distinct", "itl_predicted_ms"))
    keys = ["model", "output_tokens"]
    alone = table[table["max_loras"] == 0].drop_duplicates(keys).set_index(keys)
    ratios = []
    for row in table.to_dict("records"):
        key = (row["model"], row["output_tokens"])
        base = alone.loc[key] if key in alone.index else None
        measured = np.nan if base is None else row["mean_itl_ms"] / float(base["mean_itl_ms"])
        predicted = np.nan if base is None else row["itl_predicted_ms"] / float(base["itl_predicted_ms"])
        ratios.append((measured, predicted, predicted / measured - 1.0))
    table["error"] = table["itl_predicted_ms"] / table["mean_itl_ms"] - 1.0
    table[["ratio", "ratio_predicted", "ratio_error"]] = ratios
    return table


def validate_slots(path: str | Path) -> pd.DataFrame:
    """An engine's reported adapter loading time and KV tokens, one row each, with predictions and both errors."""
    frame = _read(path, SLOTS, ["model_loading_gib", "kv_cache_tokens"])
    table = _each(frame, _reserve, ("loading_predicted_gib", "kv_predicted_tokens"))
    table["loading_error"] = table["loading_predicted_gib"] / table["model_loading_gib"] - 1.0
    table["kv_error"] = table["kv_predicted_tokens"] / table["kv_cache_tokens"] - 1.0
    return table


def _read(path: str | Path, columns: tuple[str, ...], figures: Sequence[str]) -> pd.DataFrame:
    frame = read_facts(path, "measured adapters", columns)
    try:
        return measured(frame, figures)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _each(
    frame: pd.DataFrame, predict: Callable[[dict[Any, Any]], dict[str, float]], figures: tuple[str, ...]
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for row in frame.to_dict("records"):
        try:
            found: dict[str, Any] = {**predict(row), "problem": ""}
        except GraphsimError as error:
            found = {"problem": str(error)}
        rows.append(row | dict.fromkeys(figures, np.nan) | found)
    return pd.DataFrame(rows)


def _known(text: Any, names: dict[str, str], what: str) -> str:
    for start, name in names.items():
        if str(text).startswith(start):
            return name
    raise ConfigError(f"{what} = {text!r} is not known; allowed: {', '.join(names)} …")


def _serve(row: dict[Any, Any]) -> dict[str, float]:
    slots, pool = whole(row, "max_loras"), whole(row, "adapters")
    distinct = float(expected_distinct(uniform(pool), number(row, "batch"))) if pool else 0.0
    lora = LoraConfig(
        enabled=slots > 0, rank=whole(row, "rank"), target_modules="all-linear", active_adapters=distinct,
        max_loras=slots, max_lora_rank=whole(row, "max_lora_rank"),
    )  # fmt: skip
    estimate = simulate(
        str(row["model"]), _known(row["device"], DEVICES, "device"), whole(row, "batch"), whole(row, "input_tokens"),
        whole(row, "output_tokens"), lora=lora, engine=_known(row["framework"], ENGINES, "framework"),
    )  # fmt: skip
    return {"distinct": distinct, "itl_predicted_ms": float(estimate.tpot_s) * 1e3}


def _reserve(row: dict[Any, Any]) -> dict[str, float]:
    rank = whole(row, "max_lora_rank")
    lora = LoraConfig(rank=rank, target_modules="all-linear", max_loras=whole(row, "max_loras"), max_lora_rank=rank)
    found = footprint(str(row["model"]), SLOTS_DEVICE, lora, engine=_known(row["framework"], ENGINES, "framework"))
    return {
        "loading_predicted_gib": float(found.loading_bytes) / 2**30,
        "kv_predicted_tokens": float(found.kv_tokens),
    }
