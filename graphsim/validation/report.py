"""What the shipped calibrations say of themselves, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.cost.parameters.store import calibration_path, load_calibration
from graphsim.hardware import list_hardware, load_hardware

if TYPE_CHECKING:
    import pandas as pd


def held_out_table() -> pd.DataFrame:
    """One row per calibrated device, family and format, as the calibration files record them.

    points: measurements behind the family's fit, all formats together; date: of the fit
    held_out_error: median of |predicted / measured - 1| on whole shapes that the fit did not see, a fraction
    """
    import pandas as pd

    rows = []
    for name in list_hardware():
        path = calibration_path(load_hardware(name))
        if path is None:
            continue
        for family, facts in load_calibration(path).provenance["families"].items():
            for kind, error in facts.get("held_out_median_error", {}).items():
                rows.append(
                    {
                        "device": name, "family": family, "format": kind, "points": facts["points"],
                        "date": facts["date"], "held_out_error": error,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows, columns=["device", "family", "format", "points", "date", "held_out_error"])
