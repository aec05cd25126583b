"""Many scenarios at once: one row per combination of the choices, grouped by graph and evaluated as grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.errors import ConfigError
from graphsim.graph import Pass
from graphsim.sweeps.grid import NUMBERS, Grid, Place, grid_of
from graphsim.sweeps.job import BLOCK, DOES_NOT_FIT, RESULTS, TEXTS, evaluate, jobs_of
from graphsim.sweeps.room import require_room
from graphsim.units import short

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
"""Called with rows done and rows in all."""

REMOTE_BLOCK = 2**18
"""Rows of a job for another process: enough to outweigh the transfer."""

AT_ONCE = 64
"""Jobs handed to an executor before the first has to be back, so that a long sweep does not queue up in memory."""


def sweep(
    models: ModelRef | Deployment | Sequence[ModelRef | Deployment],
    hardware: HardwareRef | Sequence[HardwareRef] | None = None,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    zipped: Sequence[Sequence[str]] = (),
    passes: Sequence[Pass] = (),
    **choices: Any,
) -> pd.DataFrame:
    """One row per combination of all choices (their Cartesian product); the last choice varies fastest.

    models, hardware: names, paths or mappings; or deployments (`gs.Deployment`) as models and no hardware: then batch,
        input_tokens and output_tokens are the only other choices
    executor: any `concurrent.futures.Executor`; it does not change the results. Work that a broken executor leaves
        undone is done in this process
    progress: called with rows done and rows in total
    zipped: groups of choices that vary together instead of being multiplied, such as [("input_tokens",
        "output_tokens")]
    passes: your own passes, applied to every graph, see `Deployment`
    choices: precision, cost, engine (names); pp, ep, redundant_experts (whole numbers); expert_placement (names);
        strategy (`base`, `dynamic`, `merge`); targets (one list of names, or several); batch, input_tokens,
        output_tokens, tp, dp, rank, active_adapters, max_loras, max_lora_rank (numbers). Each is one value or a list.
        Numbers may be a text such as `1,2,4`, `1-64`, `1:256:8` or `8..512*2` (see `graphsim.ranges`). strategy is
        `dynamic` where ranks or targets are given, else `base`
    speculation: a choice: one `gs.Speculation`, or several, with None for none; it has its own column
    lora: a choice: one `gs.LoraConfig`, or several, with None for none: whole adapters, such as PEFT's. They determine
        strategy, targets, rank, active_adapters, max_loras and max_lora_rank, unless these are given as choices
    sp: a choice: 1 for no sequence parallelism, or the tensor-parallel degree; cp: context-parallel degrees. Each
        has its own column if it is given
    Generation times are exact with roofline costs, and within one in ten thousand with calibrated ones.
    Columns: the choices, then ttft_s, tpot_s, latency_s, tokens_per_s, one_time_s, watts (of one device, mean over the
    batch), energy_per_token_j (of all devices), memory_bytes, fits, reason, caution.
    A scenario that cannot be run has a reason in place of numbers. One that does not fit has both, as has one under
    `reference` that serving engines refuse. A caution concerns the reliability of a row's times, for example on an
    unmeasured device.
    Raises ConfigError for an unknown choice, a value that is never allowed, or an object that cannot be sent to an
    executor.
    """
    check_executor(executor)
    return frame_of(grid_of(models, hardware, choices, zipped, passes), executor, progress)


def check_executor(executor: Executor | None) -> None:
    """Raise ConfigError for what does no work."""
    if executor is not None and not isinstance(executor, Executor):
        raise ConfigError(f"executor = {short(executor)} is not a concurrent.futures.Executor")


def frame_of(grid: Grid, executor: Executor | None = None, progress: Progress | None = None) -> pd.DataFrame:
    """The table of a grid, evaluated."""
    import pandas as pd

    from graphsim.display.table import Table
    from graphsim.sweeps.choice_columns import choices_table

    names = {name for axis in grid.axes for name in axis.columns} | {*RESULTS, "fits", *TEXTS}
    require_room(grid.rows, len(names), "sweep_to_parquet writes it in parts, with bounded memory")
    table = choices_table(grid)
    results: dict[str, Any] = {name: np.full(grid.shape, np.nan) for name in RESULTS}
    results["fits"] = np.zeros(grid.shape, dtype=bool)
    results |= {name: np.zeros(grid.shape, dtype=np.int32) for name in TEXTS}
    texts: dict[str, dict[str, int]] = {name: {"": 0} for name in TEXTS}
    done = 0
    for where, found in _evaluated(grid, executor):
        reason, rules, simulated = found.pop("reason"), found.pop("rules", None), found.pop("simulated", True)
        caution = found.pop("caution", "")
        for name, values in found.items():
            results[name][where] = np.where(simulated, values, False if name == "fits" else np.nan)
        code = texts["reason"].setdefault(reason, len(texts["reason"]))
        own: Any = np.where(results["fits"][where], 0, code) if reason == DOES_NOT_FIT else code
        results["reason"][where] = own if rules is None else _coded(rules, own, texts["reason"])
        results["caution"][where] = np.where(simulated, texts["caution"].setdefault(caution, len(texts["caution"])), 0)
        done += results["fits"][where].size
        if progress:
            progress(done, grid.rows)
    for name, codes in texts.items():
        results[name] = pd.Categorical.from_codes(results[name].ravel(), pd.Index(list(codes)))
    columns = {name: values if name in TEXTS else values.ravel() for name, values in results.items()}
    return Table(table.assign(**columns))


def remote_jobs(grid: Grid) -> int:
    """Number of jobs into which a grid is divided for other processes."""
    shaping = [len(axis) for axis in grid.axes if not axis.names <= set(NUMBERS)]
    graphs = math.prod(shaping)
    return graphs * -(-grid.rows // max(graphs, 1) // REMOTE_BLOCK) if grid.rows else 0


def _coded(rules: np.ndarray, codes: Any, reasons: dict[str, int]) -> np.ndarray:
    """The codes of reasons, the rules that scenarios break put before the others."""
    texts, at = np.unique(rules, return_inverse=True)
    own = np.array([reasons.setdefault(text, len(reasons)) for text in texts.tolist()])[at.reshape(rules.shape)]
    return np.where(rules != "", own, codes)


def _evaluated(grid: Grid, executor: Executor | None) -> Iterator[tuple[Place, dict[str, Any]]]:
    if executor is None:
        for job, place in jobs_of(grid, BLOCK, here=True):
            yield place, evaluate(job)
        return
    waiting = dict(enumerate(jobs_of(grid, REMOTE_BLOCK, here=False)))
    running: dict[Future[dict[str, Any]], int] = {}
    todo = iter(list(waiting))
    while waiting:
        try:
            for number in todo:
                running[executor.submit(evaluate, waiting[number][0])] = number
                if len(running) >= AT_ONCE:
                    break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                found = future.result()
                yield waiting.pop(running.pop(future))[1], found
        except (BrokenExecutor, CancelledError):
            for job, place in waiting.values():
                yield place, evaluate(job)
            return
