"""The best way to train for a goal: every scenario of a sweep, those within the limits, ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.brief import figure_text
from graphsim.deployment.deployment import HardwareRef, ModelRef
from graphsim.errors import ConfigError, InfeasibleError, as_allowed, choices_text
from graphsim.hardware import load_hardware
from graphsim.sweeps.best import prices_of
from graphsim.sweeps.job import DOES_NOT_FIT
from graphsim.sweeps.sweep import check_executor
from graphsim.sweeps.training import frame_of
from graphsim.sweeps.training_grid import NUMBERS, STRUCTURE, training_grid
from graphsim.units import amount_text, as_number, bytes_text, short

if TYPE_CHECKING:
    import pandas as pd

GOALS: Mapping[str, tuple[str, bool]] = {
    "step": ("step_s", False),
    "tokens_per_s": ("tokens_per_s", True),
    "tokens_per_s_per_gpu": ("tokens_per_s_per_gpu", True),
    "cost_per_token": ("cost_per_token", False),
    "cost": ("cost", False),
    "hours": ("hours", False),
    "mfu": ("mfu", True),
    "memory": ("reserved_bytes", False),
}
"""For each goal the column that decides, and whether more of it is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLimits:
    """What a way to train has to keep to; None where there is no limit. The memory of a device always is one.

    devices, memory_bytes (reserved, of a device), step_s, hours, cost: at most; tokens_per_s: at least
    """

    devices: float | None = None
    memory_bytes: float | None = None
    step_s: float | None = None
    hours: float | None = None
    cost: float | None = None
    tokens_per_s: float | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for anything but single numbers above 0."""
        for name, value in self.given().items():
            number = as_number(value)
            if not isinstance(number, float) or not 0.0 < number < np.inf:
                raise ConfigError(f"best_training: {name} = {short(value)} is not allowed; expected a number above 0")

    def given(self) -> dict[str, float]:
        """The limits that there are, by name."""
        every = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in every.items() if value is not None}


def best_training(
    models: ModelRef | Sequence[ModelRef],
    hardware: HardwareRef | Sequence[HardwareRef],
    goal: str = "tokens_per_s_per_gpu",
    *,
    tokens: float | None = None,
    devices: float | None = None,
    memory_bytes: float | None = None,
    step_s: float | None = None,
    hours: float | None = None,
    cost: float | None = None,
    tokens_per_s: float | None = None,
    price_per_hour: Mapping[str, float] | float | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    **choices: Any,
) -> pd.DataFrame:
    """Every way to train that meets the limits, the best one first.

    models, hardware: as in `sweep_training`
    goal: `step`, `hours`, `cost`, `cost_per_token`, `memory` (lowest), `tokens_per_s`, `tokens_per_s_per_gpu`, `mfu`
        (highest); cost and hours are for `tokens` tokens
    tokens: number of tokens of the whole run, needed for its cost and hours
    devices, memory_bytes, step_s, hours, cost: upper limits
    tokens_per_s: lower limit
    price_per_hour: of one device, in any currency: one number, or a mapping of device names to prices
    executor, progress, choices: as in `sweep_training`
    Columns: the sweep's, then hours and, with prices, cost_per_token and cost. Ties are ordered by fewer devices.
    Raises InfeasibleError if nothing meets the limits, naming the limit that excludes most and the nearest way to
    train.
    """
    limits = TrainingLimits(
        devices=devices, memory_bytes=memory_bytes, step_s=step_s, hours=hours, cost=cost, tokens_per_s=tokens_per_s
    )
    goal = as_allowed(goal, GOALS)
    _check_goal(goal, limits, tokens, price_per_hour)
    check_executor(executor)
    grid = training_grid(models, hardware, choices)
    known = {device.name: device for device in map(load_hardware, grid.structure["hardware"])}
    prices = prices_of(price_per_hour, known)
    frame = _with_run(frame_of(grid, executor, progress), tokens, prices)
    return _ranked(frame, goal, limits)


def _check_goal(goal: str, limits: TrainingLimits, tokens: Any, price_per_hour: Any) -> None:
    if not isinstance(goal, str) or goal not in GOALS:
        raise ConfigError(f"goal = {short(goal)} is not known; {choices_text(str(goal), GOALS)}")
    number = None if tokens is None else as_number(tokens)
    if tokens is not None and (not isinstance(number, float) or not 0.0 < number < np.inf):
        raise ConfigError(f"best_training: tokens = {short(tokens)} is not allowed; expected a number above 0")
    asked = {GOALS[goal][0], *limits.given()}
    for name in sorted(asked & {"hours", "cost"}):
        if tokens is None:
            raise ConfigError(f"best_training: {name} needs tokens, as many as the whole run reads")
    for name in sorted(asked & {"cost", "cost_per_token"}):
        if price_per_hour is None:
            raise ConfigError(
                f"best_training: {name} needs price_per_hour: one number, or a mapping of devices to prices"
            )


def _with_run(frame: pd.DataFrame, tokens: float | None, prices: Mapping[str, float] | None) -> pd.DataFrame:
    """The rows with the hours and the cost of a whole run of this many tokens."""
    rate = frame["tokens_per_s"].to_numpy()
    more: dict[str, Any] = {}
    if tokens is not None:
        more["hours"] = tokens / rate / 3600.0
    if prices is not None:
        per_s = frame["hardware"].map(prices).astype(float).to_numpy() * frame["devices"].to_numpy() / 3600.0
        more["cost_per_token"] = per_s / rate
        if tokens is not None:
            more["cost"] = more["cost_per_token"] * tokens
    return frame.assign(**more)


def _ranked(frame: pd.DataFrame, goal: str, limits: TrainingLimits) -> pd.DataFrame:
    excess = _excess(frame, limits)
    kept = _runs(frame) & np.all([over <= 1.0 for over in excess.values()], axis=0)
    if not kept.any():
        raise InfeasibleError(_why_none(frame, excess))
    column, more = GOALS[goal]
    found: pd.DataFrame = frame[kept].drop(columns=["fits", "reason"])
    wanted = found[column].to_numpy()
    order = np.lexsort((found["step_s"], found["devices"], -wanted if more else wanted))
    found = found.iloc[order].reset_index(drop=True)
    found.index = found.index + 1
    return found


def _excess(frame: pd.DataFrame, limits: TrainingLimits) -> dict[str, np.ndarray]:
    """How much of each limit every row takes up: 1 is just within."""
    reserved = frame["reserved_bytes"].to_numpy(dtype=float)
    excess = {"the memory of one device": reserved / frame["capacity_bytes"].to_numpy(dtype=float)}
    for name, limit in limits.given().items():
        if name == "tokens_per_s":
            excess[f"{name} >= {figure_text([name], limit)}"] = limit / frame[name].to_numpy(dtype=float)
            continue
        values = reserved if name == "memory_bytes" else frame[name].to_numpy(dtype=float)
        excess[f"{name} <= {figure_text([name], limit)}"] = values / limit
    return excess


def _runs(frame: pd.DataFrame) -> np.ndarray:
    """The rows that break no rule, whether or not they fit."""
    whole: np.ndarray = frame["step_s"].notna().to_numpy() & frame["reason"].isin(("", DOES_NOT_FIT)).to_numpy()
    return whole


def _why_none(frame: pd.DataFrame, excess: Mapping[str, np.ndarray]) -> str:
    """One sentence: how many rows each limit excludes, and which row comes nearest to all limits."""
    runs = _runs(frame)
    if not runs.any():
        reason = frame["reason"].astype(str).value_counts()
        return f"none of {len(frame):,} scenarios can be run; most often: {reason.index[0]} ({reason.iloc[0]:,})"
    counts = {name: int(np.sum(over[runs] > 1.0)) for name, over in excess.items()}
    told = [f"{name} excludes {count:,}" for name, count in sorted(counts.items(), key=lambda c: -c[1]) if count]
    told += [f"{np.sum(~runs):,} cannot be run"] if not runs.all() else []
    nearest = int(np.argmin(np.where(runs, np.max(list(excess.values()), axis=0), np.inf)))
    row = frame.iloc[nearest]
    broken = [f"{name} by {over[nearest] - 1.0:.1%}" for name, over in excess.items() if over[nearest] > 1.0]
    return (
        f"none of {len(frame):,} scenarios meets the limits: {', '.join(told)}; nearest is {_row_text(frame, row)}, "
        f"which reserves {bytes_text(float(row['reserved_bytes']))} and misses {', '.join(broken)}"
    )


def _row_text(frame: pd.DataFrame, row: pd.Series[Any]) -> str:
    """Text that identifies a row among the others: at least the model and the device."""
    told = [f"{row['model']} on {row['hardware']}"]
    for name in (*STRUCTURE, *NUMBERS):
        if name not in ("model", "hardware") and name in frame and frame[name].nunique(dropna=False) > 1:
            value = row[name]
            told.append(f"{name} {amount_text(value)}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(told)
