"""Shares of their peak that dense GEMMs reach on CDNA, from AITER's tables of tuned kernels and from training.

The package `amd-aiter` ships them as `aiter/configs/*_tuned_gemm.csv`. A row has the fastest kernel that its authors
found for one shape on a device with `cu_num` compute units, and its time. The share is the median over compute-bound
shapes (at least 1,024 in every dimension); if several tables have a shape, the fastest counts. Tables whose kernel
names do not tell the format are left out, and so are weights with block scales, whose GEMMs are part of the served
rows.

For a device without such rows, 8-bit formats take the share that training sustains (`graphsim/training/rates.yaml`,
`of_peak`). 16-bit formats take the share of 8 bits, applied to their own peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphsim.files.measured import above_zero
from graphsim.hardware import Hardware, load_hardware
from graphsim.ops.formats import FORMATS
from graphsim.training.rates import rates_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {"cu_num", "M", "N", "K", "us", "kernelName"}
LEAST = 1024
KERNELS = {"f4gemm": "mxfp4_w4a4", "a4w4_blockscale": "mxfp4_w4a4", "a8w8_bpreshuffle": "fp8"}
"""The format of a kernel's operands, by a part of its name."""

STATED = {"fp8": "float8"}
"""Contents of the column of the weights' type if kernels of one name multiply several formats."""

WIDE = "bf16"

Shape = tuple[float, float, float]


def is_tuned(frame: pd.DataFrame) -> bool:
    """Whether a table is one of tuned GEMMs."""
    return set(frame.columns) >= COLUMNS


def gemm_shares(frames: Sequence[pd.DataFrame], devices: Iterable[str]) -> dict[str, dict[str, float]]:
    """By device and by the name under which kernels know a format (`Format.gemm`), the share of its peak.

    devices: names of the catalog; a table's rows belong to the device whose number of cores is `cu_num`
    Raises ConfigError for a cell that is not a number above 0.
    """
    found = {}
    for name in sorted(devices):
        device = load_hardware(name)
        shares = {_gemm(label): _share(device, label, times) for label, times in _fastest(frames, device).items()}
        trained = rates_of(device).of_peak
        if trained:
            shares.setdefault(_gemm("fp8"), trained)
        if _gemm("fp8") in shares:
            shares[_gemm(WIDE)] = shares[_gemm("fp8")]
        if shares:
            found[name] = {key: round(share, 3) for key, share in sorted(shares.items())}
    return found


def _gemm(label: str) -> str:
    return FORMATS[label].gemm


def _fastest(frames: Sequence[pd.DataFrame], device: Hardware) -> dict[str, dict[Shape, float]]:
    """Seconds of the fastest kernel of each large shape, by format."""
    found: dict[str, dict[Shape, float]] = {}
    for frame in frames:
        for row in frame.to_dict("records"):
            shape = (above_zero(row, "M"), above_zero(row, "N"), above_zero(row, "K"))
            label = _format(str(row["kernelName"]), row.get("q_dtype_w"))
            if not label or float(row["cu_num"]) != device.cores or min(shape) < LEAST:
                continue
            times = found.setdefault(label, {})
            times[shape] = min(times.get(shape, np.inf), above_zero(row, "us") * 1e-6)
    return found


def _format(kernel: str, stated: object) -> str:
    label = next((label for part, label in KERNELS.items() if part in kernel), "")
    return "" if "blockscale_bpreshuffle" in kernel or STATED.get(label, "") not in str(stated or "") else label


def _share(device: Hardware, label: str, times: Mapping[Shape, float]) -> float:
    peak = device.flops_per_s[FORMATS[label].compute]
    return float(np.median([2.0 * np.prod(shape) / seconds / peak for shape, seconds in times.items()]))
