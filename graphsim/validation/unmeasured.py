"""Accuracy of estimates on unmeasured devices: every measured device evaluated as if it were unmeasured.

Each device is priced once without its own calibration, with other devices of its generation as reference, and once
without its generation, with other generations as reference (`hardware/generations.json` lists them). The
Intel card's attention and expert measurements are erratic; its errors are shown but excluded from the mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.hardware import load_hardware
from graphsim.validation.residuals import LIMITS, residuals
from graphsim.validation.validate import rows_by_device

if TYPE_CHECKING:
    import pandas as pd

ERRATIC = ("battlemage", ("decode attention", "prefill attention", "expert block"))
"""The architecture and the classes whose rows are excluded from the mean."""


def unmeasured_residuals(paths: Iterable[str | Path], hardware: str | Path | None = None) -> pd.DataFrame:
    """`residuals` of all rows twice, with a further column, `without`: `device`, and `generation`."""
    import pandas as pd

    parts = []
    for device, rows in rows_by_device(paths, hardware):
        for without in ("device", "generation"):
            found = residuals(rows, device, own=False, kin=without == "device")
            parts.append(found.assign(without=without))
    return pd.concat(parts, ignore_index=True)


def unmeasured_errors(found: pd.DataFrame) -> pd.DataFrame:
    """Median of |predicted / measured - 1| of `unmeasured_residuals`, per class and device.

    Columns: without (`device` or `generation`), kernels (the class), one column per device (nan if it has no such
    rows), mean over the devices that are not excluded, limit.
    """
    import pandas as pd

    errors = (found["ratio"] - 1.0).abs().groupby([found["without"], found["kernels"], found["device"]]).median()
    lines: list[dict[str, Any]] = []
    devices = list(dict.fromkeys(found["device"]))
    for without in ("device", "generation"):
        for kernels, limit in LIMITS.items():
            by_device = {name: errors.get((without, kernels, name), float("nan")) for name in devices}
            counted = pd.Series({name: by_device[name] for name in devices if not _erratic(name, kernels)}, dtype=float)
            line = {"without": without, "kernels": kernels, **by_device}
            lines.append(line | {"mean": counted.mean(), "limit": limit})
    return pd.DataFrame(lines)


def _erratic(device: str, kernels: str) -> bool:
    architecture, classes = ERRATIC
    return kernels in classes and load_hardware(device).architecture == architecture
