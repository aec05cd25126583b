"""Matplotlib pictures of one estimate or step (extra `plot`), drawn on given axes or on new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphsim.display.axes import LINES, new_axes, subplots, tidy
from graphsim.display.breakdown import (
    LEAST_INTENSITY,
    part_text,
    peaks_of,
    points_of,
    seconds_by_kind,
    seconds_by_type,
)
from graphsim.display.nodes import number
from graphsim.display.palette import CRITICAL, INK, MEMORY_COLOURS, MUTED, TINTS
from graphsim.display.shown import ShownEstimate, ShownStep
from graphsim.ops.kinds import Kind
from graphsim.units import bytes_text, scaled, seconds_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_estimate(estimate: ShownEstimate, *, scenario: int = 0) -> Figure:
    """A figure of three panels: shares of both steps' time, the roofline, and the memory of a device."""
    figure, (shares, roof, memory) = subplots(3, (15, 4.8))
    plot_shares(estimate, ax=shares, scenario=scenario)
    plot_roofline(estimate, ax=roof, scenario=scenario)
    plot_memory(estimate, ax=memory, scenario=scenario)
    figure.suptitle(
        f"{estimate.model} on {estimate.hardware}: first token {seconds_text(number(estimate.ttft_s, scenario))}, "
        f"then {seconds_text(number(estimate.tpot_s, scenario))} per token"
    )
    figure.tight_layout()
    return figure


def plot_phase(phase: ShownStep, *, scenario: int = 0) -> Figure:
    """A figure of two panels for one step: time per operation type, and the flop/s that each operation achieves."""
    figure, (times, reached) = subplots(2, (11, 4.8))
    seconds = dict(list(seconds_by_type(phase.graph, scenario).items())[:MOST_TYPES])
    times.barh(list(seconds), [1e3 * value for value in seconds.values()], color=LINES[0])
    times.invert_yaxis()
    times.set_xlabel("busy ms")
    tidy(times, grid="x")
    _scatter(reached, phase, "o", scenario)
    _name_kinds(reached, phase, scenario)
    _log_axes(reached)
    _legend_below(reached)
    figure.suptitle(f"{phase.name}: {seconds_text(number(phase.latency_s, scenario))}")
    figure.tight_layout()
    return figure


MOST_TYPES = 12
"""Largest number of operation types in a bar chart, longest first."""


def plot_shares(estimate: ShownEstimate, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """Bars of the shares of busy time by kind of operation, one for each of the two steps."""
    ax = ax or new_axes()
    sums = {phase.name: seconds_by_kind(phase.graph, scenario) for phase in (estimate.prefill, estimate.decode)}
    left = np.zeros(len(sums))
    for kind in Kind:
        width = np.array([100 * found.get(kind, 0.0) / (sum(found.values()) or 1.0) for found in sums.values()])
        if width.any():
            ax.barh(list(sums), width, left=left, color=TINTS[kind].line, label=kind.value)
            left = left + width
    ax.invert_yaxis()
    ax.set_xlabel("% of busy time")
    _legend_below(ax)
    return tidy(ax, grid="x")


def _legend_below(ax: Axes) -> None:
    ax.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)


def plot_roofline(estimate: ShownEstimate, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """Roofline plot of every operation of both steps; the area of a point is its share of the step's time."""
    alone, ax = ax is None, ax or new_axes()
    widest = 1.0
    for phase, marker in ((estimate.prefill, "o"), (estimate.decode, "D")):
        widest = max(widest, _scatter(ax, phase, marker, scenario))
        ax.scatter([], [], s=30, color=MUTED, marker=marker, label=phase.name)
    if estimate.inference is not None:
        _roofs(ax, estimate, widest, scenario)
    if alone:
        _name_kinds(ax, estimate.prefill, scenario)
    _log_axes(ax)
    _legend_below(ax)
    return ax


def _scatter(ax: Axes, phase: ShownStep, marker: str, scenario: int) -> float:
    """Draw a step's operations as points; returns the largest intensity among them."""
    points = points_of(phase.graph, scenario)
    whole = sum(point.latency_s * point.times for point in points) or 1.0
    for kind in Kind:
        members = [point for point in points if point.kind is kind]
        if members:
            ax.scatter(
                [point.intensity for point in members],
                [point.flops_per_s for point in members],
                s=[20 + 500 * point.latency_s * point.times / whole for point in members],
                color=TINTS[kind].line,
                marker=marker,
                alpha=0.7,
            )
    return max((point.intensity for point in points), default=1.0)


def _name_kinds(ax: Axes, phase: ShownStep, scenario: int) -> None:
    """Add legend entries for the colours of the points."""
    for kind in seconds_by_kind(phase.graph, scenario):
        ax.scatter([], [], s=30, color=TINTS[kind].line, label=kind.value)


def _log_axes(ax: Axes) -> Axes:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("flops per byte of memory traffic")
    ax.set_ylabel("flop/s reached")
    return tidy(ax, grid="both")


def _roofs(ax: Axes, estimate: ShownEstimate, widest: float, scenario: int) -> None:
    hardware = estimate.inference.hardware  # type: ignore[union-attr]
    memory = number(hardware.memory_bytes_per_s, scenario)
    for i, (name, peak) in enumerate(peaks_of(estimate.prefill.graph, hardware, scenario).items()):
        ridge = peak / memory
        xs = [LEAST_INTENSITY if i == 0 else ridge, ridge, 3 * max(widest, ridge)]
        ax.plot(xs, [min(peak, x * memory) for x in xs], color=INK if i == 0 else MUTED, lw=1.6 if i == 0 else 0.9,
                ls="-" if i == 0 else ":", label=f"{name}: {scaled(peak, 'flop/s')}")  # fmt: skip


def plot_memory(estimate: ShownEstimate, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """Stacked bar of the parts of a device's memory, with its capacity."""
    ax = ax or new_axes()
    left = 0.0
    for name, colour in MEMORY_COLOURS.items():
        size = number(getattr(estimate.memory, f"{name}_bytes"), scenario)
        if size <= 0:
            continue
        label = f"{part_text(name)}: {bytes_text(size)}"
        ax.barh(["device"], [size / 2**30], left=left, color=colour, label=label)
        left += size / 2**30
    capacity = number(estimate.memory.capacity_bytes, scenario) / 2**30
    ax.axvline(capacity, color=CRITICAL, ls="--", label=f"capacity: {capacity:.4g} GiB")
    ax.set_xlabel("GiB per device")
    _legend_below(ax)
    return tidy(ax, grid="x")
