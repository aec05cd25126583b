"""Many training steps at once: one row per combination of the choices; numbers of one graph are evaluated together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.deployment.parallelism import Parallelism
from graphsim.display.training import MEMORY_PARTS
from graphsim.errors import GraphsimError
from graphsim.lora.config import LoraConfig
from graphsim.sweeps.job import DOES_NOT_FIT
from graphsim.sweeps.room import require_room
from graphsim.sweeps.sweep import check_executor
from graphsim.sweeps.training_deployments import grids_of
from graphsim.sweeps.training_grid import Structure, TrainingGrid
from graphsim.symbolic.substitute import with_fields
from graphsim.training.default_adapter import default_adapter
from graphsim.training.estimate import TrainEstimate
from graphsim.training.estimated import estimate_of
from graphsim.training.reserved import MOST_REPLAYED
from graphsim.training.setup import TrainingSetup
from graphsim.training.train import setup_of
from graphsim.training.view import FIGURES

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
"""Called with rows done and rows in all."""

SIZES = (*(f"{part}_bytes" for part in MEMORY_PARTS), "total_bytes", "reserved_bytes", "capacity_bytes")
RESULTS = (*FIGURES, "devices", *SIZES)
TEXTS = ("peak_moment", "reason", "caution")
USED = ("recompute", "optimizer")
BLOCK = 2**14
"""Scenarios of one call: arrays of this length stay in a core's cache."""

_DEGREES = ("tp", "pp", "ep", "sp", "cp", "zero", "schedule", "virtual_stages")


def sweep_training(
    models: ModelRef | Deployment | Sequence[ModelRef | Deployment],
    hardware: HardwareRef | Sequence[HardwareRef] | None = None,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> pd.DataFrame:
    """One row per combination of all choices (their Cartesian product); the last choice varies fastest.

    models, hardware: names, paths or mappings; or deployments (`gs.Deployment`) as models and no hardware: the other
        choices are then varied for each of them, except those that a deployment determines
    executor: any `concurrent.futures.Executor`; it does not change the results
    progress: called with rows done and rows in total
    choices: method, recipe, precision, cost, recompute, optimizer, sharding, variant, schedule (names); lora
        (adapters); targets and offload (one list of names, or several); pp, virtual_stages, tp, sp, cp, ep, zero,
        recompute_every (whole numbers); batch, seq_len, accumulate, dp, rank, global_batch (numbers, which share a
        graph and are computed together). Each is one value or a list. `global_batch` is the number of sequences per
        step on all devices, and determines `accumulate`
    Columns: the choices, then step_s, tokens_per_s (of all devices), tokens_per_s_per_gpu, mfu, hfu,
    trainable_parameters, devices; per device at the peak weights_bytes, adapters_bytes, gradients_bytes,
    optimizer_bytes, activations_bytes, logits_bytes, workspace_bytes, overhead_bytes, total_bytes and reserved_bytes;
    then capacity_bytes, peak_moment, fits, reason, caution.
    Where many scenarios share a graph, reserved_bytes is the allocated memory in whole pages; where only a few do, the
    caching allocator is replayed for each of them, as in `train`.
    A scenario that cannot be run has a reason in place of numbers; one that does not fit has both.
    Raises ConfigError for an unknown choice, or a value that no scenario could have.
    """
    check_executor(executor)
    grids = grids_of(models, hardware, choices)
    rows, done, found = sum(grid.rows for grid in grids), 0, []
    for grid in grids:
        found.append(frame_of(grid, executor, _shifted(progress, done, rows)))
        done += grid.rows
    return found[0] if len(found) == 1 else _together_in_one(found)


def _shifted(progress: Progress | None, before: int, rows: int) -> Progress | None:
    """Progress of one of several grids, after this number of rows of all."""
    return None if progress is None else lambda done, _: progress(before + done, rows)


def _together_in_one(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other; texts are categories again."""
    import pandas as pd

    from graphsim.display.table import Table

    joined = pd.concat([table.astype(dict.fromkeys(_texts(table), object)) for table in tables], ignore_index=True)
    return Table(joined.astype({name: "category" for name in _texts(tables[0]) if name in joined}))


def _texts(table: pd.DataFrame) -> list[str]:
    return [str(name) for name, kind in table.dtypes.items() if str(kind) == "category"]


def frame_of(grid: TrainingGrid, executor: Executor | None = None, progress: Progress | None = None) -> pd.DataFrame:
    """The table of a grid, evaluated."""
    import pandas as pd

    from graphsim.display.table import Table

    require_room(grid.rows, len((*RESULTS, "fits", *TEXTS)), "ask for fewer choices at a time")
    found: list[dict[str, Any]] = []
    done = 0
    for columns, rows in _evaluated(grid, executor):
        found.append(columns)
        done += rows
        if progress:
            progress(done, grid.rows)
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    joined |= {name: pd.Categorical(joined[name]) for name in TEXTS}
    table = grid.table()
    for name in USED:  # defaults of the recipe
        table[name] = pd.Categorical(_filled(joined[name], table[name]))
    return Table(table.assign(**{name: joined[name] for name in (*RESULTS, "fits", *TEXTS)}))


def _filled(used: NDArray[Any], asked: pd.Series[Any]) -> NDArray[Any]:
    """What was used; what was asked for where nothing was."""
    if not (used == "").any():
        return used
    return np.where(used == "", asked.astype(object).where(asked.notna(), ""), used)


def _evaluated(grid: TrainingGrid, executor: Executor | None) -> Iterator[tuple[dict[str, Any], int]]:
    left = list(grid.blocks(BLOCK))
    if executor is not None:
        try:
            for found in executor.map(evaluate, left.copy()):
                yield found, left.pop(0).rows
        except BrokenExecutor:
            pass  # the blocks that it did not get to are evaluated here
    for block in left:
        yield evaluate(block), block.rows


def evaluate(block: Structure) -> dict[str, Any]:
    """The results of some scenarios of one graph, an entry each; of those that cannot be run, why."""
    if block.rows <= MOST_REPLAYED or _uneven(block).any():
        return _one_by_one(block.flat)
    try:
        return _figures(_together(block), block.shape)
    except GraphsimError:
        return _one_by_one(block.flat)


def _uneven(block: Structure) -> NDArray[np.bool_]:
    """Which scenarios would need a part of a micro-batch."""
    accumulate = block.accumulate
    return np.asarray((accumulate < 1) | (accumulate != np.floor(accumulate)))


def _one_by_one(block: Structure) -> dict[str, Any]:
    """The results of scenarios side by side: all at once, or in halves, which tell those that cannot be run."""
    try:
        return _figures(estimated(block), block.shape)
    except GraphsimError as error:
        if block.rows > 1:
            halves = [_one_by_one(block.part(rows)) for rows in _halves(block.rows)]
            return {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
        nothing: dict[str, Any] = {name: np.array([np.nan]) for name in RESULTS}
        texts = {name: np.array([""], dtype=object) for name in (*TEXTS, *USED)}
        return nothing | {"fits": np.array([False])} | texts | {"reason": np.array([str(error)], dtype=object)}


def _halves(rows: int) -> tuple[slice, slice]:
    return slice(0, rows // 2), slice(rows // 2, rows)


def _together(block: Structure) -> TrainEstimate:
    """The estimate of a grid of scenarios, whose numbers broadcast: what depends on one of them is computed once."""
    numbers, first = block.numbers, block.flat.part(slice(0, 1))
    setup = _setup(first)
    deployment = setup.deployment
    changes: dict[str, Any] = {"parallelism": with_fields(deployment.parallelism, {"dp": numbers["dp"]})}
    if deployment.lora is not None and _has_rank(block):
        changes["lora"] = with_fields(deployment.lora, {"rank": numbers["rank"]})
    fields = {name: numbers[name] for name in ("batch", "seq_len")} | {"accumulate": block.accumulate}
    return estimate_of(with_fields(setup, fields | {"deployment": with_fields(deployment, changes)}))


def estimated(block: Structure) -> TrainEstimate:
    """The estimate of scenarios side by side, or of the one that a block holds."""
    return estimate_of(_setup(block))


def _setup(block: Structure) -> TrainingSetup:
    chosen, sizes = block.chosen, {**block.numbers, "accumulate": block.accumulate}
    numbers: dict[str, Any] = {name: v if block.rows > 1 else float(v[0]) for name, v in sizes.items()}
    if block.deployment is not None:
        ways = ("method", "recipe", "recompute", "optimizer", "recompute_every", "sharding", "offload")
        steps = {name: numbers[name] for name in ("batch", "seq_len", "accumulate")}
        return setup_of(block.deployment, **steps, **{name: chosen[name] for name in ways})
    degrees = {name: chosen[name] for name in _DEGREES}
    return setup_of(
        chosen["model"], chosen["hardware"], batch=numbers["batch"], seq_len=numbers["seq_len"],
        method=chosen["method"], lora=_adapter(block, numbers["rank"]),
        parallelism=Parallelism(dp=numbers["dp"], **degrees), precision=chosen["precision"], recipe=chosen["recipe"],
        accumulate=numbers["accumulate"], recompute=chosen["recompute"], optimizer=chosen["optimizer"],
        cost=chosen["cost"], recompute_every=chosen["recompute_every"], sharding=chosen["sharding"],
        offload=chosen["offload"],
    )  # fmt: skip


def _has_rank(block: Structure) -> bool:
    """Whether the ranks of the grid are those of the adapter."""
    return "rank" in block.asked or _own_adapter(block) is None


def _own_adapter(block: Structure) -> LoraConfig | None:
    """The adapter given, or the model's own, as in `train`."""
    given: LoraConfig | None = block.chosen["lora"] or block.chosen["model"].lora_config
    return given


def _adapter(block: Structure, rank: Any) -> LoraConfig:
    """The adapter given, or the usual one, with what the choices say of it in its place."""
    lora = _own_adapter(block) or default_adapter(block.chosen["model"])
    given = {"rank": rank if _has_rank(block) else None}
    given |= {"variant": block.chosen["variant"], "target_modules": block.chosen["targets"]}
    return replace(lora, **{name: value for name, value in given.items() if value is not None})


def _figures(estimate: TrainEstimate, shape: tuple[int, ...]) -> dict[str, Any]:
    memory = estimate.memory
    numbers = {name: getattr(estimate, name) for name in FIGURES} | {name: getattr(memory, name) for name in SIZES}
    numbers["devices"] = estimate.setup.deployment.parallelism.devices
    found: dict[str, Any] = {name: _spread(np.asarray(v, dtype=float), shape) for name, v in numbers.items()}
    fits = _spread(np.asarray(memory.fits, dtype=bool), shape)
    found |= {"fits": fits, "reason": np.where(fits, "", DOES_NOT_FIT).astype(object)}
    used = {"recompute": estimate.setup.recompute, "optimizer": estimate.setup.optimizer.name}
    texts = {"peak_moment": memory.peak_moment, "caution": estimate.caution} | used
    return found | {name: _spread(np.asarray(text, dtype=object), shape) for name, text in texts.items()}


def _spread(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An entry for each scenario, in the order of rows."""
    return np.broadcast_to(values, shape).ravel()
