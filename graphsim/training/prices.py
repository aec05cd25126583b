"""Prices of training's operations on a device: its own prices, at the rate that GEMMs sustain over a whole step."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from graphsim.cost.base import Cost, CostModel, Trusted
from graphsim.cost.calibrated import Prices
from graphsim.cost.roofline import roofline
from graphsim.hardware import Hardware
from graphsim.ops import (
    AttentionBackward,
    Direction,
    Gemm,
    HeadWeightGradient,
    InputGradient,
    Launch,
    ModuleSteps,
    Op,
    WeightGradient,
)
from graphsim.ops.attention import Attention
from graphsim.ops.experts import ExpertGemm
from graphsim.training.expert_prices import expert_cost, is_of_experts
from graphsim.training.rates import Rates, rates_of
from graphsim.training.recipe import Recipe
from graphsim.training.setup import TrainingSetup
from graphsim.units import Num

SURELY_CACHED = 0.1
"""Share of the last-level cache within which transfers were measured in a warm cache."""


class TrainingPrices(Trusted):
    """A cost model that gives the times of training's operations, based on another cost model.

    base: the device's cost model; recipe: the framework whose host launches the kernels
    rates: sustained rates of its kernels; None where `base` is the roofline or a custom one, which prices all
        operations by their own work
    own: prices operations by their own work, where `base` has no kernels for them
    """

    def __init__(self, base: CostModel, rates: Rates | None, recipe: Recipe, own: CostModel = roofline) -> None:
        self._base, self._rates, self._recipe, self._own = base, rates, recipe, own

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        """The price of an operation; a launch takes the recipe's time of its direction."""
        if isinstance(op, Launch):
            op = replace(op, times=0.0, called_s=op.times * self.launch_s(op.direction) + op.called_s)
        if self._rates is None:
            return self._base(op, hardware)
        if is_of_experts(op):
            cost = expert_cost(op, lambda one: self(one, hardware), lambda one: self._own(one, hardware))
            speed = self._recipe.expert_speed.get(hardware.architecture, 1.0)
            return slower(cost, 1.0 / speed) if isinstance(op, ExpertGemm) else cost
        if self._rates.of_peak:
            return self._of_peak(op, hardware, self._rates.of_peak)
        if isinstance(op, ModuleSteps):
            return self._step_by_step(op, hardware)
        kernel, longer = measured(op), self.longer(op, self._rates)
        cost = self._base(kernel, hardware)
        if isinstance(op, AttentionBackward):
            own = self._own(op, hardware)
            cost = replace(cost, compute_s=own.compute_s, memory_s=own.memory_s)
        cost = cost if longer == 1.0 else slower(cost, longer)
        speed = self._recipe.attention_speed.get(hardware.architecture, 1.0)
        if speed == 1.0 or not isinstance(kernel, Attention):
            return cost
        return by_older_kernels(cost, slower(self._base(shortest(kernel), hardware), longer), speed)

    def _step_by_step(self, op: ModuleSteps, hardware: Hardware) -> Cost:
        """Kernels of equal traffic one after another, each by its own size.

        A kernel that moves less than the last-level cache holds finds the previous kernel's output there: all of it up
        to half the cache, then a decreasing part. That part runs at the rate of transfers small enough to be measured
        in the cache, each with its launch, and never slower than from memory.
        """
        kernels = np.maximum(op.launches, 1.0)
        one = replace(op.cut(kernels), launches=np.minimum(op.launches, 1.0))
        moved, cache = one.elems * one.moved_bytes, np.maximum(hardware.cache_bytes, 1.0)
        found = np.clip(2.0 - 2.0 * moved / cache, 0.0, 1.0)
        pieces = np.maximum(moved / (SURELY_CACHED * cache), 1.0)
        cold, piece = self._base(one, hardware), self._base(one.cut(pieces), hardware)
        warm_s = np.minimum(pieces * piece.latency_s, cold.latency_s)
        latency_s = found * warm_s + (1.0 - found) * cold.latency_s
        return scaled(replace(cold, busy_s=latency_s - cold.launch_s), kernels)

    def _of_peak(self, op: Op, hardware: Hardware, share: float) -> Cost:
        """GEMMs at a sustained share of the datasheet's peak; other operations by their own work."""
        if not isinstance(op, Gemm) or op.adapter:
            return self._base(op, hardware)
        return slower(self._own(op, hardware), 1.0 / share)

    @property
    def base(self) -> CostModel:
        """The underlying cost model."""
        return self._base

    def by(self, base: CostModel, own: CostModel) -> TrainingPrices:
        """The same with other cost models."""
        return TrainingPrices(base, self._rates, self._recipe, own)

    def launch_s(self, direction: Direction) -> float:
        """The host's time for each kernel."""
        recipe = self._recipe
        return recipe.backward_launch_s if direction is Direction.BACKWARD else recipe.launch_s

    @staticmethod
    def longer(op: Op, rates: Rates) -> float:
        """Ratio of an operation's time to that of its measured kernel; for attention's gradient, to the forward
        kernel.
        """
        if isinstance(op, AttentionBackward):
            return rates.attention_backward / rates.attention
        if isinstance(op, Attention):
            return 1.0 / rates.attention
        if not isinstance(op, Gemm) or op.adapter:
            return 1.0
        return 1.0 / rates.of_product(direction_of(op), op.matrix_format in ("fp8", "fp4", "int8"))

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainingPrices, (self._base, self._rates, self._recipe, self._own)


def measured(op: Op) -> Op:
    """The operation whose kernel was measured: of attention's gradient, the attention."""
    if not isinstance(op, AttentionBackward):
        return op
    return Attention(**{field.name: getattr(op, field.name) for field in fields(Attention)})


def direction_of(op: Gemm) -> str:
    """`fprop`, `dgrad` or `wgrad`."""
    if isinstance(op, WeightGradient | HeadWeightGradient):
        return "wgrad"
    return "dgrad" if isinstance(op, InputGradient) or op.direction is Direction.BACKWARD else "fprop"


def shortest(op: Attention) -> Attention:
    """The same attention for one sequence of one token: its fixed time."""
    return replace(op, sequences=1.0, query_tokens=1.0, kv_tokens=1.0, pairs=1.0)


def by_older_kernels(cost: Cost, least: Cost, speed: float) -> Cost:
    """An attention's price with slower kernels, whose fixed time is the same.

    least: of the shortest attention
    speed: of the kernels over the measured ones
    """
    computing_s = np.maximum(cost.latency_s - least.latency_s, 0.0)
    return replace(cost, busy_s=cost.busy_s + computing_s * (1.0 / speed - 1.0))


def slower(cost: Cost, longer: Num) -> Cost:
    """A price multiplied by a factor, except for the kernel launch."""
    return replace(cost, busy_s=cost.latency_s * longer - cost.launch_s)


def scaled(cost: Cost, times: Num) -> Cost:
    """The price of `times` such kernels one after another, launched once."""
    return replace(slower(cost, times), compute_s=cost.compute_s * times, memory_s=cost.memory_s * times)


def prices_of(setup: TrainingSetup) -> TrainingPrices:
    """The cost model of the operations: the device's calibration at training's rates, else that of the deployment."""
    deployment = setup.deployment
    base, device = deployment.price, deployment.device
    if isinstance(base, TrainingPrices):
        return base
    rates = rates_of(device) if isinstance(base, Trusted) and base is not roofline else None
    if rates is not None and not isinstance(base, Prices):
        rates = rates if rates.of_peak else None
    elif rates is not None:
        rates = replace(rates, of_peak=0.0)
    return TrainingPrices(base, rates, setup.recipe)
