"""The same training step by another method: full, LoRA and QLoRA of one model compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphsim.display.nodes import number
from graphsim.display.training import MEMORY_PARTS
from graphsim.errors import GraphsimError
from graphsim.ops.precision import load_precision
from graphsim.training.estimate import TrainEstimate
from graphsim.training.estimated import estimate_of
from graphsim.training.methods import load_method
from graphsim.training.setup import TrainingSetup
from graphsim.training.train import setup_of
from graphsim.training.view import FIGURES

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("full", "lora", "qlora")
SIZES = (*(f"{part}_bytes" for part in MEMORY_PARTS), "total_bytes", "reserved_bytes")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MethodStep:
    """A method's step, or why there is none."""

    name: str
    estimate: TrainEstimate | None
    reason: str = ""


def methods_of(estimate: TrainEstimate, methods: Sequence[str] = METHODS) -> list[MethodStep]:
    """The step of an estimate by each method, its own among them."""
    own = estimate.setup.method.name
    names = [*methods] if own in methods else [*methods, own]
    return [_varied(estimate, name) for name in names]


def _varied(estimate: TrainEstimate, name: str) -> MethodStep:
    if name == estimate.setup.method.name:
        return MethodStep(name=name, estimate=estimate)
    try:
        return MethodStep(name=name, estimate=estimate_of(with_method(estimate.setup, name)))
    except GraphsimError as error:
        return MethodStep(name=name, estimate=None, reason=str(error))


def with_method(setup: TrainingSetup, name: str) -> TrainingSetup:
    """The same step by another method: on the published base if the previous method had one in fewer bits."""
    deployment, before = setup.deployment, setup.method
    if before.base_format and deployment.precision.name == load_precision(before.base_format).name:
        own = deployment.model.precision or load_precision("bf16")
        deployment = replace(deployment, precision=own)
    method = load_method(name)
    return setup_of(
        deployment, batch=setup.batch, seq_len=setup.seq_len, method=method, recipe=setup.recipe,
        accumulate=setup.accumulate, recompute=setup.recompute,
        optimizer=method.optimizer or setup.optimizer, squares=setup.squares, recompute_every=setup.recompute_every,
        sharding=setup.sharding, offload=setup.offload,
    )  # fmt: skip


def comparison_of(varied: Sequence[MethodStep], scenario: int = 0) -> pd.DataFrame:
    """One row per method: times, memory by part, whether it fits; NaN and a reason where it cannot be run."""
    from graphsim.display.table import Table

    rows = []
    for one in varied:
        row: dict[str, object] = {"method": one.name}
        if one.estimate is not None:
            memory = one.estimate.memory
            row |= {name: number(getattr(one.estimate, name), scenario) for name in FIGURES}
            row |= {name: number(getattr(memory, name), scenario) for name in SIZES}
            row |= {"fits": bool(number(memory.fits, scenario))}
        else:
            row |= dict.fromkeys((*FIGURES, *SIZES), float("nan")) | {"fits": False}
        rows.append(row | {"reason": one.reason})
    return Table(rows).set_index("method")
