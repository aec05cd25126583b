"""Matplotlib pictures of a training step (extra `plot`), drawn on given axes or on new ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.display.axes import LINES, new_axes, subplots, tidy
from graphsim.display.nodes import number
from graphsim.display.palette import CRITICAL, TINTS
from graphsim.display.training import DIRECTIONS, MEMORY_PARTS, busy_s, kind_text
from graphsim.errors import ConfigError, choices_text
from graphsim.ops.kinds import Kind
from graphsim.training.view import ShownStep, title_of
from graphsim.units import amount_text, bytes_text, seconds_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIB = 2.0**30


def plot_step(estimate: ShownStep, *, scenario: int = 0) -> Figure:
    """Three panels: busy time by direction and kind, memory along the step, memory at its fullest moment."""
    figure, (times, along, peak) = subplots(3, (16, 5))
    plot_busy(estimate, ax=times, scenario=scenario)
    plot_memory_timeline(estimate, ax=along, scenario=scenario)
    plot_peak(estimate, ax=peak, scenario=scenario)
    figure.suptitle(f"{title_of(estimate)}: {seconds_text(number(estimate.step_s, scenario))} a step")
    figure.tight_layout()
    return figure


def plot_busy(estimate: ShownStep, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """Busy time of a micro-batch and the update by direction, a bar each, and by kind of operation."""
    ax = ax or new_axes()
    found = busy_s(estimate.graph, scenario)
    shown = [direction for direction in DIRECTIONS if any(key[0] is direction for key in found)]
    left = np.zeros(len(shown))
    for kind in Kind:
        width = np.array([1e3 * found.get((direction, kind), 0.0) for direction in shown])
        if width.any():
            names = [DIRECTIONS[direction] for direction in shown]
            ax.barh(names, width, left=left, color=TINTS[kind].line, label=kind_text(kind))
            left = left + width
    ax.invert_yaxis()
    ax.set_xlabel("busy ms")
    _legend_below(ax)
    return tidy(ax, grid="x")


def plot_memory_timeline(estimate: ShownStep, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """Allocated memory along the step, with its peak moment labelled, and the capacity."""
    ax = ax or new_axes()
    memory = estimate.memory
    names = [name for name, _ in memory.timeline]
    sizes = [number(size, scenario) / GIB for _, size in memory.timeline]
    steps = list(range(len(names)))
    ax.fill_between(steps, sizes, color=LINES[0], alpha=0.2)
    ax.plot(steps, sizes, marker="o", color=LINES[0])
    ax.set_xticks(steps, labels=names, rotation=35, ha="right", fontsize="small")
    if sizes:
        fullest = int(np.argmax(sizes))
        ax.annotate(
            bytes_text(sizes[fullest] * GIB), (fullest, sizes[fullest]), xytext=(0, 8), textcoords="offset points",
            ha="center", color=CRITICAL,
        )  # fmt: skip
    ax.axhline(number(memory.capacity_bytes, scenario) / GIB, color=CRITICAL, ls="--", label="capacity")
    ax.set_ylim(bottom=0)
    ax.set_ylabel("GiB allocated")
    ax.legend(frameon=False, fontsize="small")
    return tidy(ax, grid="y")


def plot_peak(estimate: ShownStep, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """Contents of a device's memory at the peak, against its capacity."""
    ax = ax or new_axes()
    left = 0.0
    for name, colour in MEMORY_PARTS.items():
        size = number(getattr(estimate.memory, f"{name}_bytes"), scenario)
        if size > 0:
            ax.barh(["device"], [size / GIB], left=left, color=colour, label=f"{name}: {bytes_text(size)}")
            left += size / GIB
    capacity = number(estimate.memory.capacity_bytes, scenario)
    ax.axvline(capacity / GIB, color=CRITICAL, ls="--", label=f"capacity: {bytes_text(capacity)}")
    ax.set_xlabel("GiB per device")
    _legend_below(ax)
    return tidy(ax, grid="x")


def plot_ways(frame: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Two panels over the rows of `sweep_training`: tokens per second of a device, and memory at the peak by part.

    names: columns that distinguish the rows. Rows that cannot be run are left out.
    Raises ConfigError for a missing column, and if no row is left.
    """
    for name in names:
        if name not in frame:
            raise ConfigError(f"plot_ways: the table has no column '{name}'; {choices_text(name, map(str, frame))}")
    rows = frame[frame["step_s"].notna()]
    if not len(rows):
        raise ConfigError("plot_ways: none of the rows can be run")
    labels = [", ".join(_said(row[name]) for name in names) for row in rows.to_dict("records")]
    figure, (speed, memory) = subplots(2, (13, 1.6 + 0.42 * len(rows)))
    speed.barh(labels, rows["tokens_per_s_per_gpu"], color=LINES[0])
    speed.set_xlabel("tokens/s per device")
    left = np.zeros(len(rows))
    for part, colour in MEMORY_PARTS.items():
        width = rows[f"{part}_bytes"].to_numpy(dtype=float) / GIB
        if width.any():
            memory.barh(labels, width, left=left, color=colour, label=part)
            left = left + width
    for capacity in sorted(set(rows["capacity_bytes"])):
        memory.axvline(capacity / GIB, color=CRITICAL, ls="--")
    memory.set_xlabel("GiB of a device at the peak; dashed: its capacity")
    memory.legend(fontsize="small", frameon=False, loc="lower right")
    for ax in (speed, memory):
        ax.invert_yaxis()
        tidy(ax, grid="x")
    figure.tight_layout()
    return figure


def _said(value: Any) -> str:
    return amount_text(value) if isinstance(value, float) else str(value)


def _legend_below(ax: Axes) -> None:
    ax.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
