"""Fitting the power of devices: `python -m graphsim.calibration.power FILE.csv hardware/power.json`.

Two constants per generation (memory, compute) by least squares of the relative error, reweighted towards its absolute
value, both from zero up; one for all generations together (idle), the entry of a coarse grid with the least mean error:
no row states the power of an idle device. Rows at the power limit only show that the demand is above it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.power_rows import COLUMNS, PowerRow, check_columns, power_row
from graphsim.cost.power import EXPONENT, Shares
from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import above_zero, read_facts
from graphsim.files.written import write_text

if TYPE_CHECKING:
    import pandas as pd

IDLE = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
ROUNDS = 30
LEAST_ERROR = 0.03
"""Relative errors below this count equally, since two machines of one kind differ by more."""

AT_LIMIT = 0.9
"""Share of the limit from which a row only shows that the demand is higher."""

ABOUT = (
    "What devices draw, as shares of the power limit that their files state: idle while they wait, memory and compute "
    "on top at the full bandwidth and at the matrix peak, the latter by the cube root of its reached part; "
    "capped at the limit. One pair for each measured generation; all others take their mean."
)

Table = Sequence[tuple[PowerRow, float]]
"""Rows and the measured share of the power limit of one of their devices."""


def power_table(frame: pd.DataFrame) -> list[tuple[PowerRow, float]]:
    """The usable rows of a table: model and device are known, and the device states its power.

    Raises ConfigError if a column is missing.
    """
    check_columns(set(map(str, frame.columns)), "measured power")
    found = []
    for row in frame.to_dict("records"):
        try:
            one = power_row(row)
            share = above_zero(row, "avg_power_w") / one.devices / float(one.hardware.power_w)
        except (GraphsimError, ZeroDivisionError):
            continue
        found.append((one, share))
    return found


def fit_power(table: Table) -> dict[str, Shares]:
    """The constants of every generation in a table. Raises ConfigError for a table without rows."""
    if not table:
        raise ConfigError("measured power: no row has a known model and a device with a stated power")
    fits = [_with(table, idle) for idle in IDLE]
    return min(fits, key=lambda shares: float(np.mean(np.abs(power_errors(table, shares)))))


def power_errors(table: Table, shares: Mapping[str, Shares]) -> np.ndarray[Any, Any]:
    """predicted / measured - 1 of every row."""
    return np.array(
        [
            float(shares[row.hardware.architecture].of_limit(row.memory, row.compute)) / share - 1.0
            for row, share in table
        ]
    )


def left_out_errors(table: Table) -> np.ndarray[Any, Any]:
    """The errors of every row with constants fitted on the other models."""
    errors = np.zeros(len(table))
    for model in {row.model for row, _ in table}:
        fitted = fit_power([entry for entry in table if entry[0].model != model])
        places = [i for i, (row, _) in enumerate(table) if row.model == model]
        errors[places] = power_errors([table[i] for i in places], fitted)
    return errors


def _with(table: Table, idle: float) -> dict[str, Shares]:
    found = {}
    for name in sorted({row.hardware.architecture for row, _ in table}):
        own = [entry for entry in table if entry[0].hardware.architecture == name]
        used = np.array([[row.memory, row.compute**EXPONENT] for row, _ in own])
        memory, compute = _least(used, np.array([share for _, share in own]), idle)
        found[name] = Shares(idle=idle, memory=memory, compute=compute)
    return found


def _least(used: np.ndarray[Any, Any], shares: np.ndarray[Any, Any], idle: float) -> tuple[float, float]:
    """The two non-negative constants with the least relative error."""
    weights = np.ones(len(shares))
    found = np.zeros(2)
    for _ in range(ROUNDS):
        scaled = used / shares[:, None] * weights[:, None] ** 0.5
        found = _from_zero(scaled, (1.0 - idle / shares) * weights**0.5)
        asked = idle + used @ found
        weights = 1.0 / np.maximum(np.abs(asked / shares - 1.0), LEAST_ERROR)
        weights[(asked > 1.0) & (shares > AT_LIMIT)] = 0.0
    return float(found[0]), float(found[1])


def _from_zero(matrix: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Least squares with two non-negative unknowns."""
    best = np.zeros(2)
    least = float(wanted @ wanted)
    for kept in ([0, 1], [0], [1]):
        part = np.linalg.lstsq(matrix[:, kept], wanted, rcond=None)[0]
        rest = wanted - matrix[:, kept] @ part
        if np.all(part >= 0.0) and float(rest @ rest) < least:
            best, least = np.zeros(2), float(rest @ rest)
            best[kept] = part
    return best


def contents(table: Table, source: str) -> dict[str, Any]:
    """The contents of `hardware/power.json` for a table.

    source: the origin of its rows, in a few words
    """
    shares, errors, out = fit_power(table), power_errors(table, fit_power(table)), left_out_errors(table)
    first = next(iter(shares.values()))
    provenance = {}
    for name in shares:
        mine = np.array([row.hardware.architecture == name for row, _ in table])
        rows = [row for row, _ in table if row.hardware.architecture == name]
        provenance[name] = {
            "devices": sorted({row.hardware.name for row in rows}),
            "rows": len(rows), "models": len({row.model for row in rows}),
            "median_error": round(float(np.median(np.abs(errors[mine]))), 3),
            "left_out_models_median_error": round(float(np.median(np.abs(out[mine]))), 3),
        }  # fmt: skip
    return {
        "about": ABOUT,
        "provenance": {"source": source, **provenance},
        "idle": round(first.idle, 4),
        "generations": {
            name: {"memory": round(own.memory, 4), "compute": round(own.compute, 4)} for name, own in shares.items()
        },
    }


def main(arguments: Sequence[str]) -> Iterator[str]:
    """Fit a file, write the constants, and return the lines to print."""
    if len(arguments) != 2:
        raise ConfigError("usage: python -m graphsim.calibration.power FILE.csv POWER.json")
    frame = read_facts(arguments[0], "measured power", COLUMNS)
    source = sorted({str(text).split(" ")[0] for text in frame["source"]}) if "source" in frame else []
    found = contents(power_table(frame), f"{Path(arguments[0]).name}: {', '.join(source)}")
    write_text(arguments[1], json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for name, own in found["generations"].items():
        yield f"{name}: {own} {found['provenance'][name]}"


if __name__ == "__main__":
    try:
        for line in main(sys.argv[1:]):
            sys.stdout.write(line + "\n")
    except GraphsimError as error:
        sys.exit(str(error))
