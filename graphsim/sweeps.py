"""Many scenarios at once: the product of the choices given, one row each, grouped by graph and evaluated as arrays.

Model, device, precision, stages, expert ranks, strategy and targets make different graphs; batch, lengths, tensor and
data parallel degrees, ranks and adapters are numbers on one. What cannot be run is a row with a reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.config import ModelConfig, Parallelism
from graphsim.cost.choose import choose_cost
from graphsim.errors import ConfigError, GraphsimError
from graphsim.estimate import HardwareRef, ModelRef, deployment_of, estimate_of
from graphsim.hardware import Hardware, load_hardware
from graphsim.loading import load_model
from graphsim.lora.config import LoraConfig
from graphsim.run import Requests, Run

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 8192
"""Rows evaluated in one call: arrays of this length stay in a core's cache."""

EXACT, CURVED = 1e-9, 1e-4
"""Tolerance of the sum over the generated tokens: of piecewise linear costs, and of fitted curves."""

BASE = "base"
"""The strategy that means no adapter."""

_NUMBERS = ("batch", "input_tokens", "output_tokens", "tp", "dp", "rank", "active_adapters")
_RESULTS = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s", "memory_bytes")

Progress = Callable[[int, int], None]
"""Called with rows done and rows in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What makes one graph."""

    model: ModelConfig
    hardware: Hardware
    pp: int
    ep: int
    precision: str | None
    strategy: str
    targets: tuple[str, ...] | str
    cost: str | None

    def lora(self, rank: Any, active_adapters: Any) -> LoraConfig | None:
        """The adapter of some scenarios, or None for the base model."""
        if self.strategy == BASE:
            return None
        return LoraConfig(
            rank=rank, target_modules=self.targets, strategy=self.strategy, active_adapters=active_adapters
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Some scenarios of one graph: columns of numbers, and the rows of the table that they are."""

    structure: Structure
    rows: np.ndarray
    numbers: Mapping[str, np.ndarray]


def sweep(
    models: ModelRef | Sequence[ModelRef],
    hardware: HardwareRef | Sequence[HardwareRef],
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> pd.DataFrame:
    """One row per scenario of the product of all choices, in product order.

    choices: batch, input_tokens, output_tokens, tp, dp, rank, active_adapters (numbers); pp, ep (whole numbers);
        precision, cost (names); strategy (`base`, `dynamic`, `merge`); targets (one list of names, or several).
        Each is one value or a list; strategy is `dynamic` where ranks or targets are given, else `base`.
    executor: any `concurrent.futures.Executor`; results are the same as without
    Generation times are exact with roofline costs, and within one in ten thousand with calibrated ones.
    Columns: the choices, then ttft_s, tpot_s, latency_s, tokens_per_s, one_time_s, memory_bytes, fits, reason.
    A scenario that cannot be run has no numbers but a reason; one that does not fit has both.
    Raises ConfigError for an unknown choice or a value that no scenario could have.
    """
    table, jobs = _plan(models, hardware, _Choices.of(choices))
    results: dict[str, Any] = {name: np.full(len(table), np.nan) for name in _RESULTS}
    results["fits"], results["reason"] = np.zeros(len(table), dtype=bool), np.full(len(table), "", dtype=object)
    done = 0
    for job, found in zip(jobs, (executor.map if executor else map)(evaluate, jobs), strict=True):
        for name, values in found.items():
            results[name][job.rows] = values
        done += len(job.rows)
        if progress:
            progress(done, len(table))
    return table.assign(**results)


@dataclass(frozen=True, slots=True)
class _Choices:
    values: Mapping[str, list[Any]]

    DEFAULTS = {  # noqa: RUF012 - a constant of the class
        "batch": 1, "input_tokens": 512, "output_tokens": 128, "tp": 1, "pp": 1, "ep": 1, "dp": 1, "precision": None,
        "cost": None, "strategy": None, "targets": None, "rank": 16, "active_adapters": 1,
    }  # fmt: skip

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> _Choices:
        """Every choice as a list. Raises ConfigError for one that does not exist, or is empty."""
        from graphsim.errors import choices_text

        for name in given:
            if name not in cls.DEFAULTS:
                raise ConfigError(f"sweep has no choice '{name}'; {choices_text(name, cls.DEFAULTS)}")
        values = {name: _listed(name, given.get(name, default)) for name, default in cls.DEFAULTS.items()}
        if values["strategy"] == [None]:
            values["strategy"] = ["dynamic" if "rank" in given or "targets" in given else BASE]
        for strategy in values["strategy"]:
            if strategy not in (BASE, "dynamic", "merge"):
                raise ConfigError(f"strategy = {strategy!r} is not known; allowed: base, dynamic, merge")
        return cls(values)


def _listed(name: str, value: Any) -> list[Any]:
    if name == "targets":
        several = isinstance(value, list | tuple) and value and all(isinstance(entry, list | tuple) for entry in value)
        every = [tuple(entry) for entry in value] if several else [value if value is not None else ("attn", "ffn")]
        return [tuple(entry) if isinstance(entry, list) else entry for entry in every]
    listed = list(value) if isinstance(value, list | tuple | range | np.ndarray) else [value]
    if not listed:
        raise ConfigError(f"sweep: {name} is empty; give at least one value")
    return listed


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _plan(models: Any, hardware: Any, choices: _Choices) -> tuple[pd.DataFrame, list[Job]]:
    """The table of all scenarios, and the jobs that fill it."""
    import pandas as pd

    values = choices.values
    configs, devices = [load_model(ref) for ref in _many(models)], [load_hardware(ref) for ref in _many(hardware)]
    graphs = ("precision", "cost", "pp", "ep", "strategy", "targets")
    numbers = _grid([values[name] for name in _NUMBERS])
    frames, jobs, start = [], list[Job](), 0
    for config, device in itertools.product(configs, devices):
        for combination in itertools.product(*(values[name] for name in graphs)):
            chosen = dict(zip(graphs, combination, strict=True))
            structure = Structure(model=config, hardware=device, **chosen)
            columns = dict(zip(_NUMBERS, numbers, strict=True))
            labels = {"model": config.name, "hardware": device.name} | chosen
            labels["targets"] = "+".join(_many(chosen["targets"]))
            frames.append(pd.DataFrame(labels | columns))
            jobs += _jobs(structure, columns, start)
            start += len(numbers[0])
    return pd.concat(frames, ignore_index=True), jobs


def _grid(columns: Iterable[list[Any]]) -> list[np.ndarray]:
    try:
        arrays = [np.asarray(column, dtype=float) for column in columns]
    except (TypeError, ValueError):
        raise ConfigError(f"sweep: {', '.join(_NUMBERS)} must be numbers or lists of numbers") from None
    return [mesh.ravel() for mesh in np.meshgrid(*arrays, indexing="ij")]


def _jobs(structure: Structure, columns: Mapping[str, np.ndarray], start: int) -> list[Job]:
    """Chunks of rows with one tensor-parallel degree each, so that what cannot be cut is told apart."""
    jobs = []
    for tp in np.unique(columns["tp"]):
        rows = np.flatnonzero(columns["tp"] == tp)
        for at in range(0, len(rows), CHUNK):
            some = rows[at : at + CHUNK]
            numbers = {name: column[some] for name, column in columns.items()}
            jobs.append(Job(structure=structure, rows=some + start, numbers=numbers))
    return jobs


def evaluate(job: Job) -> dict[str, Any]:
    """The results of a job's scenarios, or the reason why there are none."""
    structure, numbers = job.structure, job.numbers
    try:
        parallelism = Parallelism(tp=float(numbers["tp"][0]), dp=numbers["dp"], pp=structure.pp, ep=structure.ep)
        lora = structure.lora(numbers["rank"], numbers["active_adapters"])
        price, name = choose_cost(structure.cost, structure.hardware)
        run = Run(
            deployment=deployment_of(structure.model, parallelism, lora, structure.precision),
            hardware=structure.hardware,
            requests=Requests(**{field: numbers[field] for field in ("batch", "input_tokens", "output_tokens")}),
            price=price,
            tolerance=EXACT if name == "roofline" else CURVED,
        )
        estimate = estimate_of(run, name)
        memory = estimate.memory
    except GraphsimError as error:
        return {"reason": str(error)}
    fits = np.broadcast_to(memory.fits, job.rows.shape)
    return {
        **{name: getattr(estimate, name) for name in _RESULTS[:-1]},
        "memory_bytes": memory.total_bytes,
        "fits": fits,
        "reason": np.where(fits, "", "does not fit in the memory of one device"),
    }
