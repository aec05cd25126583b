"""What estimates are worth on devices that nobody measured: every measured device judged as if it were one.

Once without its own calibration, so that its generation's other devices lend theirs, and once without those either,
so that other generations lend (`hardware/generations.json` says which). The Intel card's attention and experts are
erratic in the data; its errors are shown and do not count in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.held_out import THIN_NAME, thin_products
from graphsim.calibration.validate import rows_by_device
from graphsim.cost.kernels import FAMILIES, predict_with

if TYPE_CHECKING:
    import pandas as pd

LIMITS = {
    "GEMM bf16": 0.09, "GEMM fp8, fp8_block": 0.15, f"GEMM bf16, {THIN_NAME}": 0.12, "decode attention": 0.12,
    "prefill attention": 0.12, "expert block": 0.22, "collectives": 0.15,
}  # fmt: skip
"""Classes of kernels, and the median error that a device never measured should stay under."""

ERRATIC = ("battlemage", ("decode attention", "prefill attention", "expert block"))
"""The architecture whose rows of these classes do not count."""


def unmeasured_errors(paths: Iterable[str | Path], hardware: str | Path | None = None) -> pd.DataFrame:
    """Median of |predicted / measured - 1| per class and device, without its own fit and without its generation's.

    Columns: without (`device` or `generation`), kernels (the class), one column per device (nan where it has no such
    rows), mean over the devices that count, limit.
    """
    import pandas as pd

    lines: dict[tuple[str, str], dict[str, Any]] = {
        (without, name): {"without": without, "kernels": name}
        for without in ("device", "generation")
        for name in LIMITS
    }
    counted: dict[tuple[str, str], list[float]] = {key: [] for key in lines}
    for device, rows in rows_by_device(paths, hardware):
        measured, masks = rows["latency_us"].to_numpy(dtype=float), _classes(rows)
        for without in ("device", "generation"):
            predicted = predict_with(rows, device, own=False, kin=without == "device").to_numpy()
            off = np.abs(predicted / measured - 1.0)
            for name, mask in masks.items():
                error = float(np.median(off[mask])) if mask.any() else float("nan")
                lines[without, name][device.name] = error
                if mask.any() and not (device.architecture == ERRATIC[0] and name in ERRATIC[1]):
                    counted[without, name].append(error)
    for key, line in lines.items():
        line |= {"mean": float(np.mean(counted[key])) if counted[key] else float("nan"), "limit": LIMITS[key[1]]}
    return pd.DataFrame(list(lines.values()))


def _classes(rows: pd.DataFrame) -> dict[str, Any]:
    ops, dtypes = rows["op"], rows["dtype"]
    half = (ops == "gemm") & dtypes.isin(["bfloat16", "float16", "half"])
    classes = {
        "GEMM bf16": half,
        "GEMM fp8, fp8_block": (ops == "gemm") & dtypes.isin(["fp8", "fp8_block"]),
        f"GEMM bf16, {THIN_NAME}": half & thin_products(rows),
        "decode attention": ops == "generation_attention",
        "prefill attention": ops == "context_attention",
        "expert block": ops == "moe",
        "collectives": ops.isin([op for op, family in FAMILIES.items() if family.name == "collectives"]),
    }
    return {name: classes[name].to_numpy() for name in LIMITS}
