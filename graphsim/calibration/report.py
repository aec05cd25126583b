"""What the shipped calibrations say of themselves, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.calibration.store import calibration_path, load_calibration
from graphsim.hardware import list_hardware, load_hardware

if TYPE_CHECKING:
    import pandas as pd


def held_out_table() -> pd.DataFrame:
    """One row per calibrated device and family: points, and median errors in percent on shapes that were held out."""
    import pandas as pd

    rows = []
    for name in list_hardware():
        path = calibration_path(load_hardware(name))
        if path is None:
            continue
        for family, facts in load_calibration(path).provenance["families"].items():
            errors = facts["held_out_median_error"]
            held_out = ", ".join(f"{kind} {100 * error:.1f}" for kind, error in errors.items())
            rows.append({"device": name, "family": family, "points": facts["points"], "held-out error %": held_out})
    return pd.DataFrame(rows)
