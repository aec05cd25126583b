"""Which deployments cannot be told apart: the errors of estimates may be larger than what lies between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.deployment.intervals import NAMES, Uncertainty, ratio_interval
from graphsim.result import COVERAGE
from graphsim.simulation import priced
from graphsim.sweeps.grid import Grid
from graphsim.sweeps.job import inference_of

if TYPE_CHECKING:
    import pandas as pd

RESTS_ON = {"tokens_per_s_per_gpu": ("tokens_per_s", 1.0), "cost_per_token": ("tokens_per_s", -1.0)}
"""For columns that no interval is of: the number that they go with, and its exponent."""

MOST, PATIENCE = 10, 2
"""The number of rows after the first that are examined, and how many of them in a row may differ before that ends."""


def ties(grid: Grid, found: pd.DataFrame, column: str) -> list[bool | None]:
    """For each ranked row, whether it cannot be told apart from the first: their ratio may be 1, in COVERAGE of cases.

    None where unknown, as of energy. Only the top of a long table is examined; the rows below it count as told
    apart.
    found: rows of the grid's table, under their numbers there, in the order of `column`
    """
    numbers, values = found.index.to_numpy(), found[column].to_numpy(dtype=float)
    name, exponent = RESTS_ON.get(column, (column, 1.0))
    if name not in NAMES:
        return [None] * len(found)
    first = _uncertainty(grid, numbers[0])
    if first.missing:
        return [None] * len(found)
    tied: list[bool | None] = [True]
    for number, value in zip(numbers[1 : MOST + 1], values[1 : MOST + 1], strict=True):
        tied.append(_tied(first, _uncertainty(grid, number), name, exponent, value / values[0]))
        if tied[-PATIENCE:] == [False] * PATIENCE:
            break
    return tied + [False] * (len(found) - len(tied))


def _tied(first: Uncertainty, other: Uncertainty, name: str, exponent: float, ratio: float) -> bool | None:
    if other.missing:
        return None
    low, high = sorted(ratio * end**exponent for end in ratio_interval(first, other, name, COVERAGE))
    return bool(low <= 1.0 <= high)


def _uncertainty(grid: Grid, number: int) -> Uncertainty:
    return priced(inference_of(grid.scenario(int(number)))).uncertainty
