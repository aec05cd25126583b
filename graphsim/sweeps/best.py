"""The best deployment for a goal: every scenario of a sweep, those within the limits, ranked.

The search is exhaustive, since a sweep is cheap: the best is the best of all requested scenarios.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.brief import figure_text
from graphsim.cost.power import power_of
from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.deployment.parallelism import device_count
from graphsim.errors import ConfigError, InfeasibleError, as_allowed, choices_text
from graphsim.hardware import Hardware, load_hardware
from graphsim.sweeps.adapters import BASE
from graphsim.sweeps.grid import grid_of
from graphsim.sweeps.job import DOES_NOT_FIT
from graphsim.sweeps.sweep import check_executor, frame_of
from graphsim.sweeps.ties import ties
from graphsim.units import amount_text, as_number, short

if TYPE_CHECKING:
    import pandas as pd

GOALS: Mapping[str, tuple[str, bool]] = {
    "latency": ("latency_s", False),
    "ttft": ("ttft_s", False),
    "tpot": ("tpot_s", False),
    "tokens_per_s": ("tokens_per_s", True),
    "tokens_per_s_per_gpu": ("tokens_per_s_per_gpu", True),
    "cost_per_token": ("cost_per_token", False),
    "energy_per_token": ("energy_per_token_j", False),
}
"""For each goal the column that decides, and whether more of it is better."""

MORE_IS_BETTER = ("tokens_per_s", "tokens_per_s_per_gpu", "batch", "active_adapters", "max_batch")
"""Columns in which more is better; in all others less is better."""

NAMED = (
    "model", "hardware", "precision", "engine", "strategy", "batch", "input_tokens", "output_tokens", "tp", "pp", "ep",
    "cp", "dp", "expert_placement", "redundant_experts", "rank", "active_adapters",
)  # fmt: skip
"""Columns that a message names if they differ between scenarios."""

ADAPTER = ("engine", "targets", "rank", "active_adapters", "max_loras", "max_lora_rank")
"""Columns without meaning for a deployment without an adapter, unless its results differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a deployment; None for no limit. The memory of a device is always a limit.

    ttft_s, tpot_s, latency_s, devices, cost_per_token: at most
    tokens_per_s: at least
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    latency_s: float | None = None
    tokens_per_s: float | None = None
    devices: float | None = None
    cost_per_token: float | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for anything but single numbers above 0."""
        for name, value in self.given().items():
            number = as_number(value)
            if not isinstance(number, float) or not 0.0 < number < np.inf:
                raise ConfigError(f"best: {name} = {short(value)} is not allowed; expected a number above 0")

    def given(self) -> dict[str, float]:
        """The given limits, by column."""
        every = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in every.items() if value is not None}


def best(
    models: ModelRef | Deployment | Sequence[ModelRef | Deployment],
    hardware: HardwareRef | Sequence[HardwareRef] | None = None,
    goal: str = "latency",
    *,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    latency_s: float | None = None,
    tokens_per_s: float | None = None,
    devices: float | None = None,
    cost_per_token: float | None = None,
    price_per_hour: Mapping[str, float] | float | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    **choices: Any,
) -> pd.DataFrame:
    """Every deployment that meets the limits, the best one first.

    models, hardware: as in `sweep`
    goal: `latency`, `ttft`, `tpot` (lowest), `tokens_per_s`, `tokens_per_s_per_gpu` (highest), `cost_per_token`,
        `energy_per_token` (lowest)
    ttft_s, tpot_s, latency_s: upper limits in seconds
    tokens_per_s: lower limit of generated tokens per second
    devices, cost_per_token: upper limits of the number of devices and of the cost of a token
    price_per_hour: of one device, in any currency: one number, or a mapping of device names to prices
    executor, progress, choices: as in `sweep`. Adapters, their strategy and rank are choices like any other. Rows that
        an engine refuses are not ranked, nor, under `reference`, rows that all serving engines refuse
    Columns: the sweep's, then devices, tokens_per_s_per_gpu and, with prices, cost_per_token. `tied` says whether the
    row cannot be distinguished from the first, given the uncertainty of estimates (None where that is not known).
    Ties are ordered by fewer devices, then by lower latency.
    Raises InfeasibleError if nothing meets the limits, naming the limit that excludes most and the nearest deployment.
    """
    limits = Limits(
        ttft_s=ttft_s, tpot_s=tpot_s, latency_s=latency_s, tokens_per_s=tokens_per_s, devices=devices,
        cost_per_token=cost_per_token,
    )  # fmt: skip
    goal = as_allowed(goal, GOALS)
    check_goal(goal, limits, price_per_hour)
    devices_known = _devices(models, hardware)
    prices = prices_of(price_per_hour, devices_known)
    if goal == "energy_per_token":
        _require_power(devices_known)
    check_executor(executor)
    zipped, passes = choices.pop("zipped", ()), choices.pop("passes", ())
    grid = grid_of(models, hardware, choices, zipped, passes)
    frame = with_devices(frame_of(grid, executor, progress), prices)
    capacity = {name: float(device.memory_bytes) for name, device in devices_known.items()}
    found = _in_order(frame, goal, limits, capacity)
    return _numbered(found.assign(tied=np.array(ties(grid, found, GOALS[goal][0]), dtype=object)))


def check_goal(goal: str, limits: Limits, price_per_hour: Any) -> None:
    """Raise ConfigError for a goal that does not exist, or a cost goal without prices."""
    if not isinstance(goal, str) or goal not in GOALS:
        raise ConfigError(f"goal = {short(goal)} is not known; {choices_text(goal, GOALS)}")
    if price_per_hour is None and (goal == "cost_per_token" or limits.cost_per_token is not None):
        raise ConfigError("best: cost_per_token needs price_per_hour: one number, or a mapping of devices to prices")


def _require_power(devices: Mapping[str, Hardware]) -> None:
    """Raise ConfigError if a device's power is not known."""
    without = [name for name, device in devices.items() if power_of(device) is None]
    if without:
        raise ConfigError(f"best: goal = 'energy_per_token' needs power in the file of {', '.join(without)}")


def with_devices(frame: pd.DataFrame, prices: Mapping[str, float] | None = None) -> pd.DataFrame:
    """The table of a sweep with devices, tokens_per_s_per_gpu and, if prices are known, cost_per_token."""
    degrees = [name for name in ("tp", "pp", "ep", "dp", "cp") if name in frame]
    found = device_count(**{name: frame[name].to_numpy(dtype=float) for name in degrees})
    rate = frame["tokens_per_s"].to_numpy()
    more: dict[str, Any] = {"devices": found, "tokens_per_s_per_gpu": rate / found}
    if prices is not None:
        per_hour = _by_device(frame, prices)
        more["cost_per_token"] = found * per_hour / 3600.0 / rate
    return frame.assign(**more)


def ranked(frame: pd.DataFrame, goal: str, limits: Limits, capacity: Mapping[str, float]) -> pd.DataFrame:
    """The rows of a sweep with devices that meet the limits, the best one first.

    capacity: memory of each device by name, to report how far a row is from fitting
    Raises InfeasibleError if no row meets them.
    """
    return _numbered(_in_order(frame, goal, limits, capacity))


def _in_order(frame: pd.DataFrame, goal: str, limits: Limits, capacity: Mapping[str, float]) -> pd.DataFrame:
    """As `ranked`, with the row numbers of the frame."""
    excess = _excess(frame, limits, capacity)
    kept = _runs(frame) & np.all([over <= 1.0 for over in excess.values()], axis=0)
    if not kept.any():
        raise InfeasibleError(_why_none(frame, excess, limits))
    column, more = GOALS[goal]
    found: pd.DataFrame = _distinct(frame[kept].drop(columns=["fits", "reason"]))
    wanted = found[column].to_numpy()
    order = np.lexsort((found["latency_s"], found["devices"], -wanted if more else wanted))
    return found.iloc[order]


def _numbered(found: pd.DataFrame) -> pd.DataFrame:
    """Rows numbered by rank, from 1."""
    found = found.reset_index(drop=True)
    found.index = found.index + 1
    return found


def pareto(frame: pd.DataFrame, x: str, y: str, maximise: Sequence[str] = MORE_IS_BETTER) -> pd.DataFrame:
    """The rows that no other row beats in one column without losing in the other, in the order of `x`.

    x, y: names of two columns
    maximise: those of them in which more is better; in the others less is better
    Rows without numbers are left out, as are those that do not fit, where the table says so. Of rows that are equal in
    both columns, the first is kept. Raises ConfigError for a column that does not exist or is not numeric.
    """
    if not hasattr(frame, "columns"):
        raise ConfigError(f"pareto: frame = {short(frame)} is not a table; expected a pandas DataFrame, as of gs.sweep")
    for name in (x, y):
        if not isinstance(name, str) or name not in frame:
            known = choices_text(str(name), map(str, frame))
            raise ConfigError(f"pareto: the table has no column {short(name)}; {known}")
        if frame[name].dtype.kind not in "iuf":
            raise ConfigError(f"pareto: column '{name}' does not hold numbers")
    usable = frame[x].notna() & frame[y].notna()
    if "fits" in frame:
        usable &= frame["fits"].astype(bool)
    rows = frame[usable]
    first, second = (np.asarray(rows[name], dtype=float) * (-1.0 if name in maximise else 1.0) for name in (x, y))
    order = np.lexsort((second, first))
    least = np.minimum.accumulate(second[order])
    front = np.append(True, least[1:] < least[:-1])[: len(order)]
    kept: pd.DataFrame = rows.iloc[order[front]]
    return kept


def _devices(models: Any, hardware: Any) -> dict[str, Hardware]:
    """The devices asked for, by name: listed, or those of the deployments."""
    if hardware is None:
        listed = [model.device for model in _many(models) if isinstance(model, Deployment)]
    else:
        listed = [load_hardware(ref) for ref in _many(hardware)]
    return {device.name: device for device in listed}


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def prices_of(price_per_hour: Any, known: Mapping[str, Any]) -> dict[str, float] | None:
    """A price for each device. Raises ConfigError for one that is missing, unknown or no number above 0."""
    if price_per_hour is None:
        return None
    given = price_per_hour if isinstance(price_per_hour, Mapping) else dict.fromkeys(known, price_per_hour)
    prices = {name if name in known else _device_name(name): price for name, price in given.items()}
    if len(prices) < len(given):
        raise ConfigError(f"price_per_hour names one device twice: {', '.join(map(str, given))}")
    for name, price in prices.items():
        if name not in known:
            raise ConfigError(f"price_per_hour names '{name}', which is not asked for; {choices_text(name, known)}")
        number = as_number(price)
        if not isinstance(number, float) or not 0.0 < number < np.inf:
            raise ConfigError(f"price_per_hour of '{name}' = {short(price)} is not allowed; expected a number above 0")
    missing = [name for name in known if name not in prices]
    if missing:
        raise ConfigError(f"price_per_hour has no price for {', '.join(missing)}; give one for every device")
    return {name: float(prices[name]) for name in known}


def _device_name(typed: Any) -> str:
    """The catalog's name for a device as typed by a user, else the text itself."""
    try:
        return load_hardware(str(typed)).name
    except ConfigError:
        return str(typed)


def _excess(frame: pd.DataFrame, limits: Limits, capacity: Mapping[str, float]) -> dict[str, np.ndarray]:
    """How much of each limit every row takes up: 1 is just within."""
    excess = {"memory_bytes": frame["memory_bytes"].to_numpy() / _by_device(frame, capacity)}
    for name, limit in limits.given().items():
        values = frame[name].to_numpy(dtype=float)
        excess[name] = limit / values if name in MORE_IS_BETTER else values / limit
    return excess


def _by_device(frame: pd.DataFrame, values: Mapping[str, float]) -> np.ndarray:
    return frame["hardware"].map(values).astype(float).to_numpy()


def _distinct(frame: pd.DataFrame) -> pd.DataFrame:
    """Without rows that differ only in adapter fields of no adapter."""
    columns = [name for name in frame if name not in ADAPTER]
    kept: pd.DataFrame = frame[~((frame["strategy"] == BASE) & frame.duplicated(columns))]
    return kept


def _why_none(frame: pd.DataFrame, excess: Mapping[str, np.ndarray], limits: Limits) -> str:
    """One sentence: how many rows each limit excludes, and which row comes nearest to all limits."""
    runs = _runs(frame)
    if not runs.any():
        reason = frame["reason"].astype(str).value_counts()
        return f"none of {len(frame):,} scenarios can be run; most often: {reason.index[0]} ({reason.iloc[0]:,})"
    given = limits.given()
    counts = {name: int(np.sum(over[runs] > 1.0)) for name, over in excess.items()}
    worst = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    told = [f"{_limit_text(name, given)} excludes {counts[name]:,}" for name in worst]
    if not runs.all():
        told.append(f"{np.sum(~runs):,} cannot be run")
    over = np.where(runs, np.max(list(excess.values()), axis=0), np.inf)
    nearest = int(np.argmin(over))
    broken = [
        f"{name} = {figure_text([name], frame[name].iloc[nearest])}, {_beyond(values[nearest], name in MORE_IS_BETTER)}"
        for name, values in excess.items()
        if values[nearest] > 1.0
    ]
    row = _row_text(frame, nearest)
    return (
        f"none of {len(frame):,} scenarios meets the limits: {', '.join(told)}; nearest is {row}: {', '.join(broken)}"
    )


def _runs(frame: pd.DataFrame) -> np.ndarray:
    """The rows that break no rule, whether or not they fit."""
    whole: np.ndarray = frame["latency_s"].notna().to_numpy() & frame["reason"].isin(("", DOES_NOT_FIT)).to_numpy()
    return whole


def _limit_text(name: str, given: Mapping[str, float]) -> str:
    if name not in given:
        return "the memory of one device"
    return f"{name} {'>=' if name in MORE_IS_BETTER else '<='} {figure_text([name], given[name])}"


def _beyond(ratio: float, least: bool) -> str:
    """Text on how far a limit is missed."""
    if ratio < 2.0:
        return f"{1.0 - 1.0 / ratio:.1%} too little" if least else f"{ratio - 1.0:.1%} too much"
    return f"{amount_text(float(f'{ratio:.3g}'))} times too {'little' if least else 'much'}"


def _row_text(frame: pd.DataFrame, row: int) -> str:
    """Text that identifies a row among the others: at least the model and the device."""
    values = frame.iloc[row]
    told = [f"{values['model']} on {values['hardware']}"]
    for name in NAMED[2:]:
        if name in frame and frame[name].nunique(dropna=False) > 1:
            value = values[name]
            told.append(
                f"{name} {amount_text(float(value))}" if isinstance(value, float | np.floating) else f"{name} {value}"
            )
    return ", ".join(told)
