"""Single public figures compared with the estimate: `graphsim validate public`.

Each row states its whole setting: model, device, degrees, formats, concurrent sequences, lengths, and the reported
figure. A static batch (documentation of TensorRT-LLM's C++ runtime) is an estimate of all requests together; a server
with n concurrent sequences is a closed loop of n clients with the stated lengths; capacity follows from the footprint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import Row, number, read_facts, whole
from graphsim.lora.config import LoraConfig
from graphsim.simulation import simulate
from graphsim.validation.capacity import capacity_of
from graphsim.validation.figures import figure
from graphsim.validation.judged import judged_line, medians
from graphsim.validation.loops import answers_of
from graphsim.validation.served_rows import Pool, ServedRow

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("source", "model", "hw", "tp", "precision", "batch", "input", "output", "metric", "measured", "note")

ENGINES = (
    ("engine=peft", "peft"), ("NIM", "trtllm-engine"), ("performance.md v0.", "trtllm-engine"), ("TRT-LLM", "trtllm"),
    ("TensorRT", "trtllm"), ("ATOM", "atom"), ("SGLang", "sglang"), ("InferenceX", "sglang"), ("vLLM", "vllm"),
)  # fmt: skip
"""Engines by the first matching word of a source or note; NIM 1.x and TensorRT-LLM 0.x ran compiled engines."""

STATIC = ("static batch", "performance.md")
"""Words of sources with static batches: all sequences start and end together."""

RANGE_RATIO = {"InferenceX": 0.8}
"""Range ratio of sources with random lengths: the shortest length as a share of the stated one."""


def validate_public(path: str | Path) -> pd.DataFrame:
    """A row for each figure: id (by default the row's number), metric, measured, predicted, error, problem.

    Raises ConfigError for a file that cannot be read or lacks columns.
    """
    import pandas as pd

    frame = read_facts(path, "public figures", COLUMNS)
    return pd.DataFrame([_line(place, row) for place, row in enumerate(frame.to_dict("records"), 1)])


def _line(place: int, row: Row) -> dict[str, Any]:
    predicted, problem = np.nan, ""
    try:
        predicted = _predicted(row)
    except GraphsimError as error:
        problem = str(error)
    shown = {name: row[name] for name in ("grade", *COLUMNS) if name in row and name not in ("metric", "measured")}
    return judged_line(row.get("id", place), str(row["metric"]), row["measured"], predicted, problem) | shown


def _predicted(row: Row) -> float:
    metric = str(row["metric"])
    for start, predict in _METRICS.items():
        if metric.startswith(start):
            return predict(row)
    raise ConfigError("not simulated")


def _capacity(row: Row) -> float:
    found = capacity_of(row)
    if found is None:
        raise ConfigError("not simulated")
    return float(found["predicted"])


def _throughput(row: Row) -> float:
    """Generated tokens per second and device."""
    if any(words in _told(row) for words in STATIC):
        return float(simulate(**_asked(row)).tokens_per_s) / whole(row, "tp")
    return figure(answers_of(_served(row)), "output_throughput", whole(row, "tp"))


def _time_ms(row: Row) -> float:
    name = str(row["metric"])
    if engine_of(row) == "peft":
        found = simulate(**_asked(row), lora=_adapter(row))
        return 1e3 * float(found.ttft_s if name.startswith("ttft") else found.tpot_s)
    return figure(answers_of(_served(row)), name, 1.0)


def _slowdown(row: Row) -> float:
    """Reduction of requests per second by an adapter, in percent."""
    alone, adapted = (simulate(**_asked(row), lora=lora) for lora in (None, _adapter(row) or _slowing(row)))
    return 100.0 * (1.0 - float(alone.latency_s) / float(adapted.latency_s))


_METRICS: Mapping[str, Callable[[Row], float]] = {
    "kv_tokens": _capacity, "kv_avail_GiB": _capacity, "tok/s/gpu": _throughput, "ttft_ms": _time_ms,
    "tpot_ms": _time_ms, "lora_slowdown_pct": _slowdown,
}  # fmt: skip
"""Functions that predict a figure, by the beginning of its name."""


def engine_of(row: Row) -> str:
    """The engine's family, from source and note. Raises ConfigError if neither names one."""
    found = next((name for words, name in ENGINES if words.lower() in _told(row).lower()), None)
    if found is None:
        raise ConfigError(f"source = {row['source']!r} names no engine; known: {', '.join(dict(ENGINES))}")
    return found


def _asked(row: Row) -> dict[str, Any]:
    """The arguments of an estimate of all sequences together."""
    precision = str(row["precision"])
    return {
        "model": str(row["model"]), "hardware": str(row["hw"]), "batch": whole(row, "batch"),
        "input_tokens": whole(row, "input"), "output_tokens": whole(row, "output"),
        "parallelism": Parallelism(tp=whole(row, "tp"), ep=_experts(row)), "engine": engine_of(row),
        "precision": None if precision == "checkpoint" else precision,
    }  # fmt: skip


def _served(row: Row) -> ServedRow:
    """The row as a closed-loop benchmark of a server."""
    ratio = next((ratio for words, ratio in RANGE_RATIO.items() if words in _told(row)), 1.0)
    version = re.search(r"(?:vLLM|SGLang|TensorRT-LLM)\s+v?(\d+\.\d+)", _told(row), re.IGNORECASE)
    return ServedRow(
        id="", model=str(row["model"]), gpu=str(row["hw"]), engine=engine_of(row), precision=str(row["precision"]),
        version=version[1] if version else "", pool=Pool(tp=whole(row, "tp"), ep=_experts(row)),
        clients=whole(row, "batch"), input_tokens=number(row, "input"), output_tokens=number(row, "output"),
        range_ratio=ratio, as_written=True,
    )  # fmt: skip


def _experts(row: Row) -> int:
    found = re.search(r"\bEP\s*=?(\d+)", _told(row))
    return int(found[1]) if found else 1


def _adapter(row: Row) -> LoraConfig | None:
    """The adapter that a note mentions."""
    note = str(row["note"])
    if "DoRA" in note:
        return LoraConfig(rank=8, target_modules="all-linear", variant="dora")
    return LoraConfig(rank=8, target_modules="all-linear") if "LoRA unmerged" in note else None


def _slowing(row: Row) -> LoraConfig:
    """An adapter on all targets, of the rank that the source states or 8."""
    rank = re.search(r"\br(?:ank\s*)?(\d+)\b", _told(row))
    return replace(LoraConfig(rank=8, target_modules="all-linear"), rank=int(rank[1]) if rank else 8)


def _told(row: Row) -> str:
    return f"{row['source']} {row['note']}"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median absolute error and median error by grade and kind of figure."""
    kinds = table.assign(
        figure=[next((name for name in _METRICS if metric.startswith(name)), metric) for metric in table["metric"]]
    )
    return medians(kinds[kinds["error"].notna()], ["grade", "figure"] if "grade" in kinds.columns else ["figure"])
