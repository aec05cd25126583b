"""Measured serving against the estimate: time to first token and per token of a server under closed-loop load.

`concurrency` clients each send their next request when the last one is answered, so the server always holds that many.
From two estimates, one of all requests together and one of a single prompt:

    TPOT = decode step of the full batch + (concurrency - 1) · prefill of one prompt / output tokens
    TTFT = prefill of one prompt + one decode step

since every other request starts once while this one generates, and a request arrives while a step runs that it must
wait for. Scheduler, tokeniser and HTTP are not modelled; what remains of the error holds them too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.validate import hardware_name
from graphsim.config import Parallelism
from graphsim.errors import ConfigError, GraphsimError
from graphsim.estimate import simulate

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("hardware", "model", "precision", "concurrency", "input_tokens", "output_tokens", "ttft_ms", "tpot_ms")
"""Columns that a file of measured serving needs; `tp`, `pp`, `moe_ep` and `attention_dp` are 1 where absent."""

PRECISIONS = {"fp4": "mxfp4", "fp16": "bf16"}
"""Weight formats whose name in the measurements is not the catalog's."""


def validate_serving(frame: pd.DataFrame, cost: str | None = None) -> pd.DataFrame:
    """Each row with predicted `ttft_ms` and `tpot_ms`, their errors as fractions, and the reason where there is none.

    Raises ConfigError for missing columns; a row whose model or device is not known says so in `problem`.
    """
    import pandas as pd

    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ConfigError(f"column {', '.join(missing)} missing; measured serving needs {', '.join(COLUMNS)}")
    lines = []
    for row in frame.to_dict("records"):
        try:
            found = {**_predict(row, cost), "problem": ""}
        except GraphsimError as error:
            found = {"ttft_predicted_ms": np.nan, "tpot_predicted_ms": np.nan, "cost_model": "", "problem": str(error)}
        lines.append(row | found)
    table = pd.DataFrame(lines, index=frame.index)
    for name in ("ttft", "tpot"):
        table[f"{name}_error"] = table[f"{name}_predicted_ms"] / table[f"{name}_ms"] - 1.0
    return table


def validate_serving_file(path: str | Path, cost: str | None = None) -> pd.DataFrame:
    """`validate_serving` of a CSV file. Raises ConfigError if it cannot be read."""
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as measured serving ({str(error)[:120]})") from None
    return validate_serving(frame, cost)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median absolute error and bias of both times per device, model and concurrency."""
    import pandas as pd

    known = table[table["problem"] == ""]
    keys, errors = ["hardware", "model", "concurrency"], ["tpot_error", "ttft_error"]
    biases = known.groupby(keys)[errors].median()
    biases.columns = pd.Index(["tpot_bias", "ttft_bias"])
    sizes = known[keys].join(known[errors].abs())
    return sizes.groupby(keys)[errors].median().join(biases).reset_index()


def _predict(row: dict[Any, Any], cost: str | None) -> dict[str, Any]:
    def whole(name: str) -> int:
        value = row.get(name, 1)
        return 1 if value is None or value != value else int(value)

    precision = str(row["precision"])
    asked: dict[str, Any] = {
        "model": str(row["model"]).rsplit("/", 1)[-1].lower(),
        "hardware": hardware_name(str(row["hardware"])),
        "input_tokens": whole("input_tokens"),
        "output_tokens": whole("output_tokens"),
        "parallelism": Parallelism(
            tp=whole("tp"), pp=whole("pp"), ep=whole("moe_ep"), dp=whole("attention_dp"),
        ),
        "precision": PRECISIONS.get(precision, precision),
        "cost": cost,
    }  # fmt: skip
    together = simulate(batch=whole("concurrency"), **asked)
    alone = simulate(batch=1, **asked)
    step_s, prefill_s = together.tpot_s, alone.ttft_s
    others = (whole("concurrency") - 1.0) / whole("output_tokens")
    return {
        "ttft_predicted_ms": float(1e3 * (prefill_s + step_s)),
        "tpot_predicted_ms": float(1e3 * (step_s + others * prefill_s)),
        "cost_model": together.cost_model,
    }
