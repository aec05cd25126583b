"""Measured power and energy of saturated servers compared with the estimate.

Watts of all devices and joules per generated token are predicted at a row's batch; missing values of a row are assumed
as in `graphsim.calibration.power_rows`. The time per token is the measured one, so that errors come from the power
model and the prompts, not from the kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.power_rows import check_columns, power_row
from graphsim.cost.power import power_of
from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import Row

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("avg_power_w", "energy_per_token_j")
"""Columns with predicted figures."""


def energy_figures(row: Row) -> dict[str, float]:
    """The METRICS of a row. Raises ConfigError for an unknown model or device, or a device without stated power."""
    found = power_row(row)
    power = power_of(found.hardware)
    if power is None:
        raise ConfigError(f"hardware '{found.hardware.name}' states no power")
    watts = found.devices * float(power.watts(found.memory, found.compute))
    return {"avg_power_w": watts, "energy_per_token_j": watts * found.step_s / found.sequences}


def validate_energy(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each measured figure: id, metric, measured, predicted, error, problem, model and hardware.

    Raises ConfigError if a column is missing.
    """
    import pandas as pd

    check_columns(set(map(str, frame.columns)), "measured energy")
    lines = []
    for place, row in enumerate(frame.to_dict("records"), 1):
        try:
            found, problem = energy_figures(row), ""
        except GraphsimError as error:
            found, problem = {}, str(error)
        lines += [_line(place, row, metric, found.get(metric, np.nan), problem) for metric in METRICS]
    return pd.DataFrame(lines)


def _line(place: int, row: Row, metric: str, predicted: float, problem: str) -> dict[str, Any]:
    measured = _cell(row[metric])
    return {
        "id": str(row.get("id", place)), "metric": metric, "measured": measured, "predicted": predicted,
        "error": predicted / measured - 1.0 if measured else np.nan, "problem": problem,
        "model": str(row["model"]), "hardware": str(row["hardware"]),
    }  # fmt: skip


def _cell(value: Any) -> float:
    """A cell as a number; NaN for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
