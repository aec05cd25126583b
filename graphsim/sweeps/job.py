"""A part of a sweep as one unit of work: self-contained, so that any process can run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from graphsim.compile.evaluated import Evaluated
from graphsim.compile.formulas import formulas_of
from graphsim.compile.packing import packed, unpacked
from graphsim.compile.symbols import numbers_of
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.energy import energy_of
from graphsim.deployment.inference import Inference, Latencies, Requests
from graphsim.deployment.memory import Memory
from graphsim.deployment.order import NeedsNumbers
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.refusals import reasons_of
from graphsim.errors import ConfigError, GraphsimError
from graphsim.simulation import priced
from graphsim.speculation.estimate import speculated
from graphsim.sweeps.adapters import adapter_of
from graphsim.sweeps.grid import ADAPTER, DEGREES, OWN_COLUMNS, REQUESTS, SPECULATION, Grid, Place
from graphsim.symbolic.substitute import with_fields

TIMES = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s")
ENERGIES = {"watts": "watts", "energy_per_token_j": "per_token_j"}
"""Columns of a sweep, with their names in an `Energy`."""
RESULTS = (*TIMES, "one_time_s", *ENERGIES, "memory_bytes")
TEXTS = ("reason", "caution")
DOES_NOT_FIT = "does not fit in the memory of one device"
BLOCK = 2**16
"""Scenarios evaluated in one go: arrays of this length stay in a core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The scenarios of one graph: the choices that determine it, pickled unless the job stays in this process, and the
    grid of numbers.
    """

    structure: bytes | Mapping[str, Any]
    numbers: Mapping[str, np.ndarray]
    shape: tuple[int, ...]


def jobs_of(grid: Grid, most: int, *, here: bool) -> list[tuple[Job, Place]]:
    """The jobs that fill a grid, of at most `most` rows each, and the positions of each one's scenarios.

    here: whether this process runs them. Raises ConfigError if another process does and something cannot be sent to it.
    """
    jobs = []
    for chosen, place in grid.structures():
        structure = _kept(chosen) if here else packed(chosen, "sweep")
        open_axes = [i for i, where in enumerate(place) if isinstance(where, slice)]
        open_grid = Grid(tuple(grid.axes[i] for i in open_axes))
        for block in open_grid.blocks(most):
            where = list(place)
            for i, part in zip(open_axes, block, strict=True):
                where[i] = part if isinstance(part, slice) else slice(part, part + 1)
            piece = open_grid.sub(block)
            numbers = piece.numbers((slice(None),) * len(piece.axes))
            jobs.append((Job(structure=structure, numbers=numbers, shape=piece.shape), tuple(where)))
    return jobs


def _kept(chosen: dict[str, Any]) -> bytes | dict[str, Any]:
    """Pickled, so that a later sweep finds the same objects again; unchanged if that is impossible."""
    try:
        return packed(chosen, "sweep")
    except ConfigError:
        return chosen


def evaluate(job: Job) -> dict[str, Any]:
    """The results of a job's scenarios, arrays that broadcast to its shape; or the reason for their absence.

    reason: of all that do not fit, or of every scenario; caution: of all; rules: of those that break a rule, else ""
    """
    _structure(job.structure)  # raises for modules that this process cannot import
    try:
        inference = _inference(
            job.structure, tuple((name, float(values.flat[0])) for name, values in job.numbers.items())
        )
        rules, simulated = _rules(inference, job)
        formulas = None
        if simulated.any() and not _structure(job.structure).get(SPECULATION):
            formulas = formulas_of(inference)
        if formulas is not None and formulas.noted.guards:
            refused = np.broadcast_to(formulas.noted.sentences(_inputs(inference, job)), job.shape)
            rules, simulated = np.where(rules == "", refused, rules), simulated & (refused == "")
        if not simulated.any():
            return {"reason": "", "rules": rules}
        found = _through_the_passes(job) if formulas is None else _numbers(formulas, inference, job)
        return found | ({"rules": rules, "simulated": simulated} if (rules != "").any() else {})
    except GraphsimError as error:
        return {"reason": str(error)}


def _rules(inference: Inference, job: Job) -> tuple[np.ndarray, np.ndarray]:
    """For each scenario the rule that it breaks, and whether it is still simulated."""
    deployment, lora, numbers = inference.deployment, inference.deployment.adapter, job.numbers
    if lora is not None:
        lora = with_fields(lora, {name: numbers[name] for name in ADAPTER if name in numbers})
    degrees = with_fields(deployment.parallelism, {name: numbers[name] for name in ("dp",) if name in numbers})
    requests = with_fields(inference.requests, {name: numbers[name] for name in REQUESTS if name in numbers})
    return reasons_of(with_fields(deployment, {"lora": lora, "parallelism": degrees}), requests, job.shape)


def _inputs(inference: Inference, job: Job) -> dict[str, Any]:
    """The values of the formulas' variables, in all scenarios."""
    inputs = numbers_of(inference)
    return inputs | {name: values for name, values in job.numbers.items() if name in inputs}


def _numbers(formulas: Evaluated, inference: Inference, job: Job) -> dict[str, Any]:
    """The results of a job's scenarios by their formulas, whether or not an engine would run them."""
    inputs = _inputs(inference, job)
    (ttft_s, generation_s, one_time_s), memory = formulas.times_s(inputs), formulas.memory(inputs)
    times = Latencies(
        ttft_s=ttft_s, generation_s=generation_s, batch=inputs["batch"], output_tokens=inputs["output_tokens"]
    )
    found = {name: getattr(times, name) for name in TIMES} | {"one_time_s": one_time_s}
    devices = with_fields(inference.deployment.parallelism, {"dp": inputs["dp"]}).devices
    energy = energy_of(times, formulas.activities(inputs), inference.hardware, devices)
    found |= {name: getattr(energy, field) for name, field in ENERGIES.items()}
    return found | _room(memory) | {"caution": inference.deployment.caution}


def _room(memory: Memory) -> dict[str, Any]:
    fits = np.asarray(memory.fits)
    return {"memory_bytes": memory.total_bytes, "fits": fits, "reason": DOES_NOT_FIT if not fits.all() else ""}


def _structure(structure: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """The choices that determine the graph, as the same objects for every job on it."""
    return _unpickled(structure) if isinstance(structure, bytes) else structure


@lru_cache(maxsize=64)
def _unpickled(structure: bytes) -> dict[str, Any]:
    chosen: dict[str, Any] = unpacked(structure, "sweep")
    return chosen


def _inference(structure: bytes | Mapping[str, Any], numbers: tuple[tuple[str, Any], ...]) -> Inference:
    chosen = {**_structure(structure), **dict(numbers)}
    deployment = chosen["deployment"] if "deployment" in chosen else _deployment(chosen)
    return Inference(
        deployment=deployment,
        requests=Requests(**{name: chosen[name] for name in REQUESTS}),
    )


def inference_of(chosen: Mapping[str, Any]) -> Inference:
    """The inference of a scenario with all its choices."""
    return _inference(chosen, ())


def _deployment(chosen: Mapping[str, Any]) -> Deployment:
    degrees = {name: chosen[name] for name in (*DEGREES, "expert_placement", *OWN_COLUMNS) if name in chosen}
    kept = {name: chosen[name] for name in ("precision", "cost", "engine", "passes")}
    return Deployment(
        chosen["model"], chosen["hardware"], parallelism=Parallelism(**degrees), lora=adapter_of(chosen), **kept
    )


def _through_the_passes(job: Job) -> dict[str, Any]:
    """For a structure without recorded formulas, and with drafts: the scenarios evaluated by the passes themselves.

    One scenario at a time if a user's own pass needs single numbers.
    """
    flat = {name: np.broadcast_to(values, job.shape).ravel() for name, values in job.numbers.items()}
    size = flat["batch"].size
    try:
        found = _estimated(job, flat)
    except NeedsNumbers:
        each = [_estimated(job, {name: float(values[i]) for name, values in flat.items()}) for i in range(size)]
        found = {name: np.array([one[name] for one in each]) for name in each[0] if name not in TEXTS}
        found |= {"reason": "" if found["fits"].all() else DOES_NOT_FIT, "caution": each[0]["caution"]}
    return {
        name: value if isinstance(value, str) else np.broadcast_to(value, [size]).reshape(job.shape)
        for name, value in found.items()
    }


def _estimated(job: Job, numbers: Mapping[str, Any]) -> dict[str, Any]:
    estimate = priced(_inference(job.structure, tuple(numbers.items())))
    if (speculation := _structure(job.structure).get(SPECULATION)) is not None:
        estimate = speculated(estimate, speculation)
    found = {name: getattr(estimate, name) for name in RESULTS[:-1]} | _room(estimate.memory)
    return found | {"caution": estimate.caution}
