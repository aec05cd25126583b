"""The spread of an operation's time: quantiles of the residuals of the kernel that prices it.

An operation uses those of its own kernel: of its family, kind, class of time and distance from the measurements.
Memory-bound operations that were not measured use the constants of 16-bit GEMMs (`elementwise.borrow`), and their
residuals. Host operations have none, since they are not kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.cost.calibrated import Prices
from graphsim.cost.residuals import Record, beyond, kind_of, log_residuals, sizes_of
from graphsim.cost.surfaces.tables import Array
from graphsim.ops import Op
from graphsim.units import Num

INSTEAD = {"elementwise": ("gemm", "bfloat16")}
"""The family and kind of kernel whose residuals a family without a record uses."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residual:
    """The possible error of an operation's time.

    family: the family that shares the error
    key: the operations that run the same kernel and so have the same error
    record, kind, seconds, far: arguments of `log_residuals`
    """

    family: str
    key: tuple[Any, ...]
    record: Record
    kind: str
    seconds: Array
    far: Array

    @property
    def common(self) -> float:
        """The share of the variance that is common to all kernels of the family; the rest is independent."""
        return float(self.record.get("common", {}).get(self.kind, 0.0))

    def factors(self, scores: Array) -> Array:
        """Measured over predicted at normal scores: scores along the first axis, scenarios or one along the second."""
        return np.exp(log_residuals(self.record, self.kind, self.seconds, scores, self.far))


def residual_of(prices: Prices, op: Op) -> Residual | None:
    """The possible error of an operation's time; None where no similar residuals are recorded."""
    kernels = kernels_of(prices, op)
    if not kernels:
        return None
    shape, seconds = min(kernels, key=lambda kernel: float(np.max(kernel[1])))
    seconds, record, kind, far = np.atleast_1d(seconds), prices.records.get(op.family), kind_of(shape), np.zeros(1)
    if record is None:
        reference, kind = INSTEAD.get(op.family, ("", ""))
        record = prices.records.get(reference)
        if record is None:
            return None
    else:
        far = np.atleast_1d(beyond(record, shape))
    sizes = [float(np.ravel(np.asarray(size))[0]) for size in sizes_of(shape).values()]
    return Residual(family=op.family, key=(op.family, kind, *sizes), record=record, kind=kind, seconds=seconds, far=far)


def kernels_of(prices: Prices, op: Op) -> list[tuple[Any, Num]]:
    """The shapes of the measured kernels that an operation may run as, with their seconds; none if it has none."""
    asked: list[tuple[Any, Num]] = []

    def asking(shape: Any) -> Num:
        seconds = prices.kernel_s(shape)
        asked.append((shape, seconds))
        return seconds

    prices.latency_s(op, asking)
    return asked
