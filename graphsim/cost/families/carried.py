"""Fits of expert blocks of one device as they hold for another one of its generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphsim.cost.families.blend import KernelFit
from graphsim.cost.families.formats import MOE, peak_of
from graphsim.hardware import Hardware


def carried(fits: Mapping[str, Any], hardware: Hardware, reference: Hardware) -> dict[str, Any]:
    """The fits of a reference device as they hold for another one.

    Rows that pad the experts' keep cores busy with loading, widening and adding as much as matrix units: an H200, whose
    memory alone is faster than an H100's, hardly gains. So where a core's matrix units do less in a clock than there,
    as on an H20 or on GeForce cards, padding takes as many clocks of a core as there.
    """
    return {name: _carried(part, name, hardware, reference) if name in MOE else part for name, part in fits.items()}


def _carried(kernels: Mapping[str, KernelFit], name: str, hardware: Hardware, reference: Hardware) -> dict[str, Any]:
    """Of one format."""
    rates = MOE[name].rates
    ours, theirs = (peak_of(device, rates) / (device.cores * device.clock_hz) for device in (hardware, reference))
    less = np.minimum(ours / theirs, 1.0)
    return {
        kernel: {**fit, "constants": {**fit["constants"], "pad_rows": fit["constants"]["pad_rows"] * less}}
        for kernel, fit in kernels.items()
    }
