"""Saturated servers, which always run their largest batch: those of ML.ENERGY, with sampling from a truncated
distribution.

Power and energy are computed at the measured time per token (`graphsim.validation.energy`); times are simulated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphsim.calibration.power_rows import PROMPT_TOKENS
from graphsim.errors import GraphsimError
from graphsim.files.measured import Row, number, whole
from graphsim.validation.energy import METRICS as ENERGY
from graphsim.validation.energy import energy_figures
from graphsim.validation.judged import judged_line
from graphsim.validation.run_lines import NOT_SIMULATED
from graphsim.validation.served import lines_of
from graphsim.validation.served_rows import Pool, ServedRow

COLUMN = "energy_per_token_j"
"""Column that identifies such a table."""

SPREAD = 0.25
"""Assumed ratio of the shortest to the longest answer, if only the mean is stated."""


def saturated_lines(row: Row, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A line for each of the row's figures in `names`."""
    told = [name for name in names if row[name] == row[name]]
    timed = {line["metric"]: line for line in lines_of(_served(row, told))}
    for metric in told:
        if metric in timed:
            yield timed[metric]
        elif metric in ENERGY:
            yield _energy(row, metric)
        else:
            yield judged_line(row["id"], metric, row[metric], np.nan, NOT_SIMULATED)


def _energy(row: Row, metric: str) -> dict[str, Any]:
    try:
        return judged_line(row["id"], metric, row[metric], energy_figures(row)[metric])
    except GraphsimError as error:
        return judged_line(row["id"], metric, row[metric], np.nan, str(error))


def _served(row: Row, told: Sequence[str]) -> ServedRow:
    """The row as a closed loop, with the average number of running sequences as the number of clients."""
    prompt = PROMPT_TOKENS.get(str(row["task"]), PROMPT_TOKENS["lm-arena-chat"])
    devices, answer = whole(row, "gpus"), number(row, "avg_output_len")
    clients = max(1, round(number(row, "avg_batch_size")))
    version = re.search(r"\d+\.\d+", str(row["framework"]))
    return ServedRow(
        id=str(row["id"]), model=str(row["model"]), gpu=str(row["hardware"]), engine="vllm",
        version=version[0] if version else "", precision=str(row["precision"]),
        pool=Pool(tp=devices, ep=devices if whole(row, "ep") > 1 else 1), clients=clients, samples=True,
        input_tokens=2.0 * prompt / (1.0 + SPREAD), output_tokens=2.0 * answer / (1.0 + SPREAD), range_ratio=SPREAD,
        per_client=max(2, whole(row, "requests") // clients), judged="saturated",
        measured={name: number(row, name) for name in told if name.endswith(("_itl_ms", "output_tok_s"))},
    )  # fmt: skip
