"""Time to first token and per token of measured servers, one row per server: `graphsim validate e2e`.

Predictions are those of `graphsim validate served`, with the file's information on each server. Unless a file states
another, the protocol is InferenceX's: lengths of at least 0.8 of the stated ones (`range_ratio`), ten requests per
client (`requests_per_client`), the first ones all at once (its README and `benchmarks/benchmark_lib.sh`; lengths
as in `sample_random_requests` of github.com/kimbochen/bench_serving, which it runs).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.measured import measured, read_facts
from graphsim.validation.served import lines_of
from graphsim.validation.served_rows import rows_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("hardware", "model", "precision", "concurrency", "input_tokens", "output_tokens", "ttft_ms", "tpot_ms")
"""Columns that a file of measured servers needs; `tp`, `pp`, `moe_ep` and `attention_dp` are 1 where absent."""


def validate_serving(frame: pd.DataFrame) -> pd.DataFrame:
    """Each row with predicted `ttft_ms` and `tpot_ms`, their errors as fractions, and the reason if there is none.

    `problem` has the reason, such as an unknown model or device. Raises ConfigError for missing columns.
    """
    import pandas as pd

    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ConfigError(f"column {', '.join(missing)} missing; measured serving needs {', '.join(COLUMNS)}")
    frame = measured(frame, ("ttft_ms", "tpot_ms"))
    found: dict[str, list[Any]] = {name: [] for name in (*_PREDICTED, *_ERRORS, "problem")}
    for row in rows_of(frame, "measured serving"):
        figures = {line["metric"]: line for line in lines_of(row)}
        for what in ("ttft", "tpot"):
            line = figures.get(f"{what}_ms", {})
            found[f"{what}_predicted_ms"].append(line.get("predicted", np.nan))
            found[f"{what}_error"].append(line.get("error", np.nan))
        found["problem"].append(next((line["problem"] for line in figures.values()), "nothing was measured"))
    return frame.join(pd.DataFrame(found, index=frame.index))


_PREDICTED, _ERRORS = ("ttft_predicted_ms", "tpot_predicted_ms"), ("ttft_error", "tpot_error")


def validate_serving_file(path: str | Path) -> pd.DataFrame:
    """`validate_serving` of a CSV file. Raises ConfigError if it cannot be read."""
    frame = read_facts(path, "measured serving")
    try:
        return validate_serving(frame)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median absolute error and bias of both times per device, model and concurrency."""
    import pandas as pd

    known = table[table["problem"] == ""]
    keys, errors = ["hardware", "model", "concurrency"], ["tpot_error", "ttft_error"]
    biases = known.groupby(keys)[errors].median()
    biases.columns = pd.Index(["tpot_bias", "ttft_bias"])
    sizes = known[keys].join(known[errors].abs())
    return sizes.groupby(keys)[errors].median().join(biases).reset_index()
