"""Blocks of experts: their sizes, and the experts and rows of the busiest device by the router's distribution.

balanced       every expert gets the same: min(m·topk, experts) are hit
uniform        at random: experts · (1 - (1 - 1/experts)^(m·topk)) are hit
power_law_a    an expert's load is drawn from a density x^-a on [1, 0.8·m] and rounded to whole
               tokens; the device with the largest sum counts (the reference data's router)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.cost.families.formats import MOE, Dtype, dtype_of, stored_bytes
from graphsim.errors import ConfigError
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeShape:
    """One block of `experts` experts, each gate, up and down of hidden × inter, on one of tp · ep devices.

    m: tokens
    distribution: how the router spreads them
    kernel: the engine's name for it, if known
    hit: expected number of experts with a token, over all devices, if it does not follow from the distribution
    busiest: rows of the busiest device over the mean of all, if they do not follow from it
    weight_bytes: per weight, scales included; None for the layout that the dtype names
    activation_bytes: per number of the tokens and between the GEMMs; None for that of the dtype's kernels
    """

    family: ClassVar[str] = "moe"

    m: Num
    hidden: Num
    inter: Num
    topk: Num
    experts: Num
    tp: Num = 1.0
    ep: Num = 1.0
    dtype: str = "bfloat16"
    distribution: str = "balanced"
    kernel: str = ""
    hit: Num | None = None
    busiest: Num = 1.0
    weight_bytes: float | None = None
    activation_bytes: float | None = None

    @property
    def formats(self) -> Dtype:
        """Formats of the operands and matrix rate for the dtype. Raises ConfigError for an unknown one."""
        return MOE[dtype_of("moe", self.dtype)]

    @property
    def sizes(self) -> dict[str, Num]:
        """Its sizes on one device, however the experts are cut."""
        return {
            "m": self.m, "hidden": self.hidden, "inter": self.inter / self.tp, "topk": self.topk,
            "experts": self.experts / self.ep,
        }  # fmt: skip

    @property
    def w_bytes(self) -> float:
        """Bytes per weight."""
        return stored_bytes("moe", self.dtype) if self.weight_bytes is None else self.weight_bytes

    @property
    def counted_bytes(self) -> float:
        """Bytes per weight as the fits count them, in the layout that the kernels were measured with."""
        measured, named = self.formats.measured, self.formats.weights
        return self.w_bytes if measured is None else self.w_bytes * (measured.bytes / named.bytes)

    @property
    def x_bytes(self) -> float:
        """Bytes per number of activations."""
        return self.formats.activation_bytes if self.activation_bytes is None else self.activation_bytes


def skew_of(distribution: str) -> float:
    """The exponent of a power-law router, 0 for the even ones. Raises ConfigError for an unknown name."""
    if distribution in ("balanced", "uniform"):
        return 0.0
    try:
        skew = float(distribution.removeprefix("power_law_"))
    except ValueError:
        skew = 0.0
    if not (distribution.startswith("power_law_") and 0.0 < skew < 2.0):
        raise ConfigError(
            f"distribution '{distribution}' is not known; allowed: balanced, uniform, power_law_A with A from 0 to 2"
        )
    return skew + 1e-3 if skew == 1.0 else skew


def experts_hit(shape: MoeShape) -> Num:
    """Expected number of experts, over all devices, that get at least one token."""
    if shape.hit is not None:
        return shape.hit
    hit: Num
    rows, skew = shape.m * shape.topk, skew_of(shape.distribution)
    fewest = np.minimum(shape.topk, shape.experts)
    if shape.distribution == "uniform":
        hit = -shape.experts * np.expm1(rows * np.log1p(-1.0 / np.maximum(shape.experts, 1.0 + 1e-9)))
        hit = np.maximum(hit, fewest)
        return hit
    if not skew:
        return np.minimum(rows, shape.experts)
    top, mean = _power_law(shape, skew)
    half = np.clip(0.5 * shape.experts * mean / rows, 1.0, top)  # the draw that rounds up to one token
    rounded_up = shape.experts * (1.0 - (1.0 - half ** (1.0 - skew)) / (1.0 - top ** (1.0 - skew)))
    placed = np.maximum(rounded_up, rows * (1.0 - _moment(half, top, skew) / mean))
    spare = np.clip(1.5 - rows * top / (shape.experts * mean), 0.0, 1.0) * np.maximum(rows - placed, 0.0)
    hit = np.maximum(np.minimum(np.minimum(rounded_up + spare, rows), shape.experts), fewest)
    return hit


def busiest_rows(shape: MoeShape) -> Num:
    """Rows of the GEMMs on the busiest of the `ep` devices."""
    rows, skew = shape.m * shape.topk, skew_of(shape.distribution)
    if not skew:
        return np.maximum(rows / shape.ep * shape.busiest, 1.0)
    top, mean = _power_law(shape, skew)
    first = np.maximum(np.minimum(top / (shape.experts * mean), 1.0 / shape.topk), 1.0 / shape.experts)
    others = (shape.experts / shape.ep - 1.0) / np.maximum(shape.experts - 1.0, 1.0)
    return np.maximum(rows * np.minimum(first + (1.0 - first) * np.maximum(others, 0.0), 1.0), 1.0)


def _power_law(shape: MoeShape, skew: float) -> tuple[Num, Num]:
    """Largest and mean draw of the density x^-skew on [1, 0.8 m]."""
    top = np.maximum(0.8 * shape.m, 2.0)
    return top, _moment(top, top, skew)


def _moment(x: Num, top: Num, skew: float) -> Num:
    """Integral of the draws up to x, over the density's norm."""
    return (1.0 - skew) / (2.0 - skew) * (x ** (2.0 - skew) - 1.0) / (top ** (1.0 - skew) - 1.0)
