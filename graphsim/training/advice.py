"""Advice on a training step: changes that make it fit or run faster, one at a time and in combination, each
simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphsim.deployment.scenarios import scenarios_in, take
from graphsim.errors import GraphsimError
from graphsim.ops.precision import load_precision
from graphsim.result import plain
from graphsim.training.estimate import TrainEstimate
from graphsim.training.estimated import estimate_of
from graphsim.training.methods import load_method
from graphsim.training.optimizers import load_optimizer
from graphsim.training.recipe import FUSABLE, load_recipe
from graphsim.training.setup import TrainingSetup

WORTH = 0.01
"""Least relative gain in tokens per second and device for a change to be reported, if the step fits."""

MOST_TOGETHER = 4
LIGER = "fms-hf-tuning-liger"
"""A recipe whose loss is Liger's fused linear cross-entropy."""

Change = Callable[[TrainingSetup], TrainingSetup | None]
"""Another setup; None if nothing changes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """A step with a change.

    name: the change, with its command-line options
    """

    name: str
    tokens_per_s_per_gpu: float
    step_s: float
    reserved_bytes: float
    total_bytes: float
    fits: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        return plain({name: getattr(self, name) for name in self.__slots__})  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainAdvice:
    """now: the unchanged step; levers: changes that make it fit, or faster, the fastest that fits first."""

    now: Outcome
    levers: tuple[Outcome, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        return {"now": self.now.to_dict(), "levers": [lever.to_dict() for lever in self.levers]}


def advice_of(estimate: TrainEstimate, trying: Callable[[int, str], None] | None = None) -> TrainAdvice:
    """Changes that make a step fit, or run faster if it fits. trying: called with the number tried and the current
    one.
    """
    setup = estimate.setup
    if scenarios_in(setup) is not None:
        setup = take(setup, 0)
        estimate = estimate_of(setup)
    now, found = _outcome("as it is", estimate), {}
    for done, (name, change) in enumerate(CHANGES.items()):
        if trying:
            trying(done, name)
        outcome = _tried(name, setup, (change,))
        if outcome is not None:
            found[name] = outcome
    levers = [lever for lever in found.values() if lever.fits and _helps(lever, now)]
    if not now.fits and not levers:
        levers += _together(setup, found, now)
    levers.sort(key=lambda lever: (not lever.fits, -lever.tokens_per_s_per_gpu if lever.fits else lever.reserved_bytes))
    return TrainAdvice(now=now, levers=tuple(levers))


def _helps(lever: Outcome, now: Outcome) -> bool:
    return not now.fits or lever.tokens_per_s_per_gpu > (1.0 + WORTH) * now.tokens_per_s_per_gpu


def _tried(name: str, setup: TrainingSetup, changes: tuple[Change, ...]) -> Outcome | None:
    """The step with some changes; None if one of them changes nothing or cannot be run."""
    for change in changes:
        changed = change(setup)
        if changed is None:
            return None
        setup = changed
    try:
        return _outcome(name, estimate_of(setup))
    except GraphsimError:
        return None


def _outcome(name: str, estimate: TrainEstimate) -> Outcome:
    memory = estimate.memory
    return Outcome(
        name=name, tokens_per_s_per_gpu=float(estimate.tokens_per_s_per_gpu), step_s=float(estimate.step_s),
        reserved_bytes=float(memory.reserved_bytes), total_bytes=float(memory.total_bytes),
        fits=bool(np.all(memory.fits)),
    )  # fmt: skip


def _together(setup: TrainingSetup, found: dict[str, Outcome], now: Outcome) -> Iterator[Outcome]:
    """The changes that save the most memory, accumulated until the step fits or no further change helps."""
    order = [lever.name for lever in sorted(found.values(), key=lambda lever: lever.reserved_bytes)]
    chosen: list[str] = []
    least = now.reserved_bytes
    for name in order:
        outcome = _tried(" and ".join([*chosen, name]), setup, tuple(CHANGES[each] for each in (*chosen, name)))
        if outcome is None or outcome.reserved_bytes >= least:
            continue
        chosen.append(name)
        least = outcome.reserved_bytes
        if outcome.fits or len(chosen) == MOST_TOGETHER:
            yield outcome
            return


def _recompute(how: str) -> Change:
    return lambda setup: None if setup.recompute == how else replace(setup, recompute=how)


def _micro_batch(factor: float) -> Change:
    """Other micro-batches of the same step."""

    def change(setup: TrainingSetup) -> TrainingSetup | None:
        batch, accumulate = setup.batch * factor, setup.accumulate / factor
        whole = batch >= 1 and batch == np.floor(batch) and accumulate >= 1 and accumulate == np.floor(accumulate)
        squares = None if setup.squares is None else setup.squares * factor
        return replace(setup, batch=batch, accumulate=accumulate, squares=squares) if whole else None

    return change


def _optimizer(name: str) -> Change:
    def change(setup: TrainingSetup) -> TrainingSetup | None:
        found = load_optimizer(name)
        return None if setup.optimizer.name == found.name else replace(setup, optimizer=found)

    return change


def _qlora(setup: TrainingSetup) -> TrainingSetup | None:
    method = load_method("qlora")
    if setup.method.name != "lora" or setup.deployment.precision.name != "bf16":
        return None
    deployment = replace(setup.deployment, precision=load_precision(method.base_format))
    return replace(setup, method=method, deployment=deployment)


def _sharding(name: str) -> Change:
    def change(setup: TrainingSetup) -> TrainingSetup | None:
        several = float(setup.deployment.parallelism.dp) > 1
        return replace(setup, sharding=name) if several and setup.sharding != name else None

    return change


def _fused_loss(setup: TrainingSetup) -> TrainingSetup | None:
    if setup.recipe.loss.chunks == 0:
        return None
    fused = tuple(dict.fromkeys((*setup.recipe.fused, "loss")))
    return replace(setup, recipe=replace(setup.recipe, fused=fused, loss=load_recipe(LIGER).loss))


def _fused(setup: TrainingSetup) -> TrainingSetup | None:
    fused = tuple(dict.fromkeys((*setup.recipe.fused, *(kind for kind in FUSABLE if kind != "loss"))))
    return None if fused == setup.recipe.fused else replace(setup, recipe=replace(setup.recipe, fused=fused))


def _flash(setup: TrainingSetup) -> TrainingSetup | None:
    if setup.recipe.attention == "flash":
        return None
    return replace(setup, recipe=replace(setup.recipe, attention="flash"))


CHANGES: dict[str, Change] = {
    "no recomputation (--recompute none)": _recompute("none"),
    "selective recomputation (--recompute selective)": _recompute("selective"),
    "full recomputation (--recompute full)": _recompute("full"),
    "half the micro-batch, twice as many": _micro_batch(0.5),
    "twice the micro-batch, half as many": _micro_batch(2.0),
    "an 8-bit optimizer (--optimizer adamw_8bit)": _optimizer("adamw_8bit"),
    "a fused optimizer (--optimizer adamw_fused)": _optimizer("adamw_fused"),
    "QLoRA (--method qlora)": _qlora,
    "ZeRO-3 (--sharding zero3)": _sharding("zero3"),
    "ZeRO-2 (--sharding zero2)": _sharding("zero2"),
    "a fused loss, such as Liger's": _fused_loss,
    "fused kernels, such as Liger's": _fused,
    "FlashAttention": _flash,
}
"""The changes that are tried, by display name."""
