"""The scenarios of a sweep: axes of choices, and their Cartesian product in order.

An axis holds the values of one choice, or of several that go together (zipped). Choices that change the graph are
iterated over; the others stay arrays of one axis each, which broadcast against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.cost.choose import choose_cost
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.deployment.own import checked
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.scenarios import count, scenarios_in
from graphsim.errors import ConfigError, as_allowed, choices_text
from graphsim.graph import Pass
from graphsim.hardware import load_hardware
from graphsim.lora.config import STRATEGIES, LoraConfig
from graphsim.lora.profile import load_profile
from graphsim.models.loading import load_model
from graphsim.ops.precision import load_precision
from graphsim.ranges import values_of
from graphsim.speculation.speculation import checked_speculation
from graphsim.sweeps.adapters import BASE, LORA, adapter_axis
from graphsim.sweeps.axis import Axis, column_of
from graphsim.units import as_number, entries_of, require_known, short

DEFAULTS: Mapping[str, Any] = {
    "model": None, "hardware": None, "precision": None, "cost": None, "engine": DEFAULT_ENGINE, "pp": 1, "ep": 1,
    "expert_placement": "random", "redundant_experts": 0, "strategy": None, "targets": None, "batch": 1,
    "input_tokens": 512, "output_tokens": 128, "tp": 1, "dp": 1, "rank": 16, "active_adapters": 1,
    "max_loras": 0, "max_lora_rank": 0,
}  # fmt: skip
"""Every choice of a sweep, in the order of the table's rows: the last varies fastest."""

DEGREES = ("tp", "pp", "ep", "dp", "redundant_experts")
REQUESTS = ("batch", "input_tokens", "output_tokens")
ADAPTER = ("rank", "active_adapters", "max_loras", "max_lora_rank")

SPECULATION = "speculation"
OWN_COLUMNS = ("sp", "cp")
OPTIONAL = (SPECULATION, LORA, *OWN_COLUMNS)
"""Choices that have a column only if they are given."""

NUMBERS = ("batch", "input_tokens", "output_tokens", "dp", "rank", "active_adapters", "max_loras", "max_lora_rank")
"""Choices that are numbers on one graph; all others change the graph."""

Place = tuple[int | slice, ...]
"""A part of a grid: for each axis one entry, or a range of entries."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The axes of a sweep, and the user's own passes for every graph."""

    axes: tuple[Axis, ...]
    passes: tuple[Pass, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Entries of each axis."""
        return tuple(map(len, self.axes))

    @property
    def rows(self) -> int:
        """Scenarios in all."""
        return math.prod(self.shape)

    def blocks(self, most: int) -> Iterator[Place]:
        """The grid in pieces of at most `most` rows (one entry of the last axis at least), in the order of rows."""
        yield from blocks_of(self.shape, most)

    def sub(self, place: Place) -> Grid:
        """A piece of the grid, as a grid."""
        parts = [where if isinstance(where, slice) else slice(where, where + 1) for where in place]
        return Grid(tuple([axis.part(where) for axis, where in zip(self.axes, parts, strict=True)]), self.passes)

    def structures(self) -> Iterator[tuple[dict[str, Any], Place]]:
        """Each combination of the choices that determine a graph, with the positions of its scenarios."""
        shaping = [i for i, axis in enumerate(self.axes) if not axis.names <= set(NUMBERS)]
        for entry in np.ndindex(*[self.shape[i] for i in shaping]):
            place: list[int | slice] = [slice(None)] * len(self.axes)
            chosen: dict[str, Any] = {"passes": self.passes}
            for i, at in zip(shaping, entry, strict=True):
                place[i] = at
                chosen |= self.axes[i].entry(at)
            yield chosen, tuple(place)

    def scenario(self, row: int) -> dict[str, Any]:
        """All choices of one row."""
        chosen: dict[str, Any] = {"passes": self.passes}
        for axis, at in zip(self.axes, np.unravel_index(row, self.shape), strict=True):
            chosen |= axis.entry(int(at))
        return chosen

    def numbers(self, place: Place) -> dict[str, np.ndarray]:
        """The values of the axes that `place` leaves open, each along a dimension of its own."""
        open_axes = [i for i, where in enumerate(place) if isinstance(where, slice)]
        found = {}
        for dimension, i in enumerate(open_axes):
            shape = [1] * len(open_axes)
            shape[dimension] = -1
            for name, column in self.axes[i].columns.items():
                found[name] = np.asarray(column, dtype=float).reshape(shape)
        return found


def blocks_of(shape: tuple[int, ...], most: int) -> Iterator[Place]:
    """A grid of a shape in pieces of at most `most` rows (an entry of the last axis at least), in the order of rows."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    if inner > most:
        for i in range(shape[0]):
            yield from ((i, *rest) for rest in blocks_of(shape[1:], most))
        return
    size = max(1, most // inner)
    for start in range(0, shape[0], size):
        yield (slice(start, min(start + size, shape[0])), *[slice(0, length) for length in shape[1:]])


def grid_of(
    models: Any,
    hardware: Any,
    choices: Mapping[str, Any],
    zipped: Sequence[Sequence[str]] = (),
    passes: Sequence[Pass] = (),
) -> Grid:
    """The requested grid: of choices, or of deployments and requests.

    Raises ConfigError for a choice that does not exist, is empty, or has a value that no scenario could have.
    """
    passes, zipped = checked(passes), _groups(zipped)
    for name in choices:
        if name not in (*DEFAULTS, *OPTIONAL) or name in ("model", "hardware"):
            raise ConfigError(f"sweep has no choice '{name}'; {choices_text(name, [*list(DEFAULTS)[2:], *OPTIONAL])}")
    if any(isinstance(model, Deployment) for model in _many(models)):
        return _of_deployments(_many(models), hardware, choices, zipped, passes)
    listed = {name: _listed(name, choices.get(name, default)) for name, default in DEFAULTS.items()}
    listed |= _speculations(choices)
    listed |= {name: _listed(name, choices[name]) for name in OWN_COLUMNS if name in choices}
    listed["model"] = [load_model(ref) for ref in _many(models)]
    listed["hardware"] = [load_hardware(ref) for ref in _many(hardware)]
    if len(listed["strategy"]) == 1 and listed["strategy"][0] is None:
        listed["strategy"] = ["dynamic" if "rank" in choices or "targets" in choices else BASE]
    listed["strategy"] = [as_allowed(strategy, (BASE, *STRATEGIES)) for strategy in listed["strategy"]]
    for strategy in listed["strategy"]:
        require_known("strategy", strategy, (BASE, *STRATEGIES))
    for engine in listed["engine"]:
        load_profile(engine)
    _check_names(listed)
    _check_numbers(listed)
    if LORA not in choices:
        return Grid(tuple(_axes(listed, zipped)), passes)
    adapters = adapter_axis(choices[LORA], choices, {**DEFAULTS, "targets": ("attn", "ffn")})
    others = {name: values for name, values in listed.items() if name not in adapters.names}
    return Grid((adapters, *_axes(others, zipped)), passes)


def _of_deployments(
    deployments: Sequence[Any],
    hardware: Any,
    choices: Mapping[str, Any],
    zipped: Sequence[Sequence[str]],
    passes: Sequence[Pass],
) -> Grid:
    """The grid of deployments, whose choices vary together, and of requests, which are separate choices."""
    said = [name for name in choices if name not in (*REQUESTS, SPECULATION)]
    said += ["hardware"] * (hardware is not None) + ["passes"] * bool(passes)
    if said:
        raise ConfigError(
            f"sweep: {', '.join(said)} given together with deployments, which say {'it' if len(said) == 1 else 'them'} "
            f"already; allowed: {', '.join((*REQUESTS, SPECULATION))}"
        )
    rows = [_choices_of(entry) for entry in deployments]
    if any(row["deployment"].parallelism.cp != 1 for row in rows):
        rows = [row | {"cp": row["deployment"].parallelism.cp} for row in rows]
    listed = {name: _listed(name, choices.get(name, DEFAULTS[name])) for name in REQUESTS}
    for name in REQUESTS:
        count(name, np.asarray(listed[name]))
    listed |= _speculations(choices)
    columns = {name: tuple([row[name] for row in rows]) for name in rows[0]}
    numeric = (*NUMBERS, *DEGREES, "cp")
    together = Axis({name: column_of(values) if name in numeric else values for name, values in columns.items()})
    return Grid((together, *_axes(listed, zipped)))


def _speculations(choices: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Drafts to choose from, None for no draft; empty where none is requested. Raises ConfigError for arrays in one."""
    if SPECULATION not in choices:
        return {}
    found = [checked_speculation(value) for value in _listed(SPECULATION, choices[SPECULATION])]
    if any(scenarios_in(value) is not None for value in found):
        raise ConfigError("sweep: a speculation holds arrays of scenarios; give a list of speculations")
    return {SPECULATION: found}


def _choices_of(deployment: Any) -> dict[str, Any]:
    """A deployment's value of every choice except the requests, and the deployment itself."""
    if not isinstance(deployment, Deployment):
        raise ConfigError(f"sweep: {short(deployment)} is given together with deployments; give it as a Deployment too")
    if scenarios_in(deployment) is not None:
        raise ConfigError("sweep: a deployment holds arrays of scenarios; give one deployment for each")
    deployment = deployment.under(DEFAULT_ENGINE)
    lora, degrees = deployment.adapter, deployment.parallelism
    adapter = {name: getattr(lora, name) if lora else DEFAULTS[name] for name in ADAPTER}
    return {
        "deployment": deployment, "model": deployment.model, "hardware": deployment.device,
        "precision": deployment.precision, "cost": deployment.cost, "engine": deployment.engine,
        "pp": degrees.pp, "ep": degrees.ep, "expert_placement": degrees.expert_placement,
        "redundant_experts": degrees.redundant_experts, "strategy": lora.strategy if lora else BASE,
        "targets": lora.target_modules if lora else ("attn", "ffn"), "tp": degrees.tp, "dp": degrees.dp,
    } | adapter  # fmt: skip


def _axes(listed: Mapping[str, Sequence[Any]], zipped: Sequence[Sequence[str]]) -> Iterator[Axis]:
    group: dict[str, tuple[str, ...]] = {}
    for names in zipped:
        for name in names:
            if name not in listed:
                raise ConfigError(f"sweep: zipped names no choice '{name}'; {choices_text(name, listed)}")
            if name in group:
                raise ConfigError(f"sweep: zipped names '{name}' twice; a choice can belong to one group only")
            group[name] = tuple(names)
        if len({len(listed[name]) for name in names}) > 1:
            lengths = ", ".join(f"{name} has {len(listed[name])}" for name in names)
            raise ConfigError(f"sweep: zipped choices need equally many values; {lengths}")
    done: set[str] = set()
    for name in listed:
        names = group.get(name, (name,))
        if not done & set(names):
            yield Axis({each: column_of(listed[each]) for each in names})
        done |= set(names)


def _groups(zipped: Any) -> Sequence[Sequence[str]]:
    groups = () if zipped is None else zipped
    if not isinstance(groups, list | tuple) or not all(isinstance(names, list | tuple) for names in groups):
        raise ConfigError(
            f"sweep: zipped = {short(zipped)} is not allowed; expected groups of names, such as [('batch', 'tp')]"
        )
    return groups


def _listed(name: str, value: Any) -> Any:
    if name in (*NUMBERS, *DEGREES, *OWN_COLUMNS):
        return _numbers_of(name, value)
    if name == "targets":
        several = isinstance(value, list | tuple) and value and all(isinstance(entry, list | tuple) for entry in value)
        every = [tuple(entry) for entry in value] if several else [value if value is not None else ("attn", "ffn")]
        return [tuple(entry) if isinstance(entry, list) else entry for entry in every]
    return _not_empty(name, entries_of(value))


def _numbers_of(name: str, value: Any) -> np.ndarray:
    """The numbers of a choice: a number, several of them, or a text such as `1-8`."""
    if isinstance(value, str):
        try:
            value = values_of(value)
        except ConfigError as error:
            raise ConfigError(f"sweep: {name}: {error}") from None
    if isinstance(value, list | tuple | range):
        _not_empty(name, value)
    numbers = as_number(value)
    if numbers is None:
        raise ConfigError(f"sweep: {name} = {short(value)} is not allowed; expected a number or a list of numbers")
    return np.atleast_1d(np.asarray(numbers))


def _not_empty(name: str, listed: Any) -> Any:
    if not len(listed):
        raise ConfigError(f"sweep: {name} is empty; give at least one value")
    return listed


def _many(value: Any) -> list[Any]:
    many = [] if value is None else entries_of(value)
    if not many:
        raise ConfigError("sweep: the list of models or hardware is empty; give at least one")
    return many


def _check_names(listed: Mapping[str, list[Any]]) -> None:
    """Check targets, placements, formats and cost models, which must be names: a function could not be sent to another
    process.
    """
    for placement in listed["expert_placement"]:
        Parallelism(expert_placement=placement)
    for targets in listed["targets"]:
        LoraConfig(target_modules=targets)
    for precision in listed["precision"]:
        if precision is not None:
            load_precision(precision)
    for cost in listed["cost"]:
        if cost is not None and not isinstance(cost, str):
            raise ConfigError(f"sweep: cost = {short(cost)} is not a name; use simulate for a cost function")
        choose_cost(cost, listed["hardware"][0])


def _check_numbers(listed: Mapping[str, list[Any]]) -> None:
    """Check every number separately, as a single simulation would."""
    for name in REQUESTS:
        count(name, np.asarray(listed[name]))
    for name in ADAPTER:
        fields: dict[str, Any] = {name: listed[name]}
        LoraConfig(**fields)
