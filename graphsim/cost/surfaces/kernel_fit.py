"""The complete fit of a kernel: the constants of its skeleton, then its correction surface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphsim.cost.surfaces.fitting import Order, SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.tables import Array
from graphsim.units import Num

SURFACE_ROUNDS = 10

Constants = Mapping[str, float]


def fit_kernel(
    skeleton: Callable[[Constants], Num],
    coordinates: Mapping[str, Num],
    measured_s: Array,
    *,
    start: Constants,
    layout: SurfaceSpec,
    order: Callable[[Constants], Order],
    hold: float,
    rounds: int,
) -> dict[str, Any]:
    """Constants and surface of one kernel, in the form of a calibration.

    skeleton: seconds of all measured rows under some constants
    coordinates: of the rows, by the layout's names
    start, hold, rounds: see `fit_constants`
    order: the pairs of kernels of which the second must not be faster, under the fitted constants
    """
    constants = fit_constants(lambda c: np.asarray(skeleton(c)), start, np.log(measured_s), hold=hold, rounds=rounds)
    target = np.log(measured_s / skeleton(constants))
    arrays = {name: np.asarray(value, dtype=float) for name, value in coordinates.items()}
    surface = fit_surface(layout, arrays, target, order=order(constants), rounds=SURFACE_ROUNDS)
    return {"constants": constants, "surface": surface.to_json()}
