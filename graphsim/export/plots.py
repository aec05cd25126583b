"""Matplotlib pictures of estimates and sweeps (extra `plot`), drawn on given axes or on new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.estimate import HardwareRef, ModelRef, simulate
from graphsim.export.breakdown import LEAST_INTENSITY, peaks_of, points_of, seconds_by_kind
from graphsim.export.files import needs
from graphsim.export.nodes import Kind, number
from graphsim.export.palette import CRITICAL, INK, MUTED, TINTS
from graphsim.lora.config import LoraConfig
from graphsim.result import Estimate
from graphsim.units import bytes_text, scaled, seconds_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#78716c", "#0891b2", "#b45309", "#dc2626")
_SCALES = {
    "ttft_s": (1e3, "time to first token, ms"),
    "tpot_s": (1e3, "time per token, ms"),
    "latency_s": (1.0, "latency of the batch, s"),
    "tokens_per_s": (1.0, "generated tokens per second"),
    "tokens_per_s_per_gpu": (1.0, "generated tokens per second and device"),
}


def plot_estimate(estimate: Estimate, *, scenario: int = 0) -> Figure:
    """Three panels: where the time of both steps goes, the roofline, and the memory of a device."""
    figure, (shares, roof, memory) = _subplots(3, (15, 4.2))
    plot_shares(estimate, ax=shares, scenario=scenario)
    plot_roofline(estimate, ax=roof, scenario=scenario)
    plot_memory(estimate, ax=memory, scenario=scenario)
    figure.suptitle(
        f"{estimate.model} on {estimate.hardware}: first token {seconds_text(number(estimate.ttft_s, scenario))}, "
        f"then {seconds_text(number(estimate.tpot_s, scenario))} per token"
    )
    figure.tight_layout()
    return figure


def plot_shares(estimate: Estimate, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """Shares of the busy time of both steps by part of the layer."""
    ax = ax or _axes()
    sums = {phase.name: seconds_by_kind(phase.graph, scenario) for phase in (estimate.prefill, estimate.decode)}
    left = np.zeros(len(sums))
    for kind in Kind:
        width = np.array([100 * found.get(kind, 0.0) / (sum(found.values()) or 1.0) for found in sums.values()])
        if width.any():
            ax.barh(list(sums), width, left=left, color=TINTS[kind].line, label=kind.value)
            left = left + width
    ax.invert_yaxis()
    ax.set_xlabel("% of busy time")
    ax.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    return _tidy(ax, grid="x")


def plot_roofline(estimate: Estimate, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """Every operation of both steps under the device's roof, as large as its share of the step."""
    ax = ax or _axes()
    widest = 1.0
    for phase, marker in ((estimate.prefill, "o"), (estimate.decode, "D")):
        points = points_of(phase.graph, scenario)
        whole = sum(point.latency_s * point.times for point in points) or 1.0
        widest = max([widest, *(point.intensity for point in points)])
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
                    label=f"{phase.name}: {kind.value}",
                )
    if estimate.run is not None:
        _roofs(ax, estimate, widest, scenario)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("flops per byte of memory traffic")
    ax.set_ylabel("flop/s reached")
    return _tidy(ax, grid="both")


def _roofs(ax: Axes, estimate: Estimate, widest: float, scenario: int) -> None:
    hardware = estimate.run.hardware  # type: ignore[union-attr]
    memory = number(hardware.memory_bytes_per_s, scenario)
    for i, (name, peak) in enumerate(peaks_of(estimate.prefill.graph, hardware, scenario).items()):
        ridge = peak / memory
        xs = [LEAST_INTENSITY if i == 0 else ridge, ridge, 3 * max(widest, ridge)]
        ax.plot(xs, [min(peak, x * memory) for x in xs], color=INK if i == 0 else MUTED, lw=1.6 if i == 0 else 0.9,
                ls="-" if i == 0 else ":")  # fmt: skip
        ax.annotate(f"{name} {scaled(peak, 'flop/s')}", (xs[-1], peak), ha="right", va="bottom", fontsize="small")


def plot_memory(estimate: Estimate, *, ax: Axes | None = None, scenario: int = 0) -> Axes:
    """What lies in a device's memory, against its capacity."""
    ax = ax or _axes()
    left = 0.0
    for name, colour in zip(("weights", "kv_cache", "activations", "adapters", "overhead"), _LINES, strict=False):
        size = number(getattr(estimate.memory, f"{name}_bytes"), scenario)
        label = f"{name.replace('_', ' ')}: {bytes_text(size)}"
        ax.barh(["device"], [size / 2**30], left=left, color=colour, label=label)
        left += size / 2**30
    capacity = number(estimate.memory.capacity_bytes, scenario) / 2**30
    ax.axvline(capacity, color=CRITICAL, ls="--", label=f"capacity: {capacity:.4g} GiB")
    ax.set_xlabel("GiB per device")
    ax.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    return _tidy(ax, grid="x")


def plot_latency(
    frame: pd.DataFrame, *, y: str = "tpot_s", x: str = "batch", by: str | None = None, ax: Axes | None = None
) -> Axes:
    """A figure of a sweep over the batch (or another column), one line per value of `by`.

    frame: a sweep's rows; rows without a figure (infeasible ones) are left out.
    """
    _require(frame, [x, y, *([by] if by else [])])
    ax = ax or _axes()
    factor, label = _SCALES.get(y, (1.0, y))
    rows = frame[np.isfinite(frame[y].astype(float))]
    groups: list[tuple[Any, pd.DataFrame]] = [("", rows)] if by is None else list(rows.groupby(by, sort=False))
    for (name, group), colour in zip(groups, _LINES * (1 + len(groups) // len(_LINES)), strict=False):
        ordered = group.sort_values(x)
        ax.plot(ordered[x], ordered[y] * factor, marker="o", color=colour, label=f"{by} = {name}" if by else None)
    ax.set_xscale("log", base=2)
    ax.set_xlabel(x.replace("_", " "))
    ax.set_ylabel(label)
    ax.set_ylim(bottom=0)
    if by:
        ax.legend(frameon=False)
    return _tidy(ax, grid="both")


def overhead_frame(
    model: ModelRef,
    hardware: HardwareRef,
    *,
    ranks: Sequence[float] = (8, 16, 32, 64, 128),
    batches: Sequence[float] = (1, 4, 16, 64),
    lora: LoraConfig | None = None,
    input_tokens: float = 512,
    output_tokens: float = 128,
) -> pd.DataFrame:
    """Overhead of a dynamic adapter over the base model for every rank and batch: columns rank, batch, overhead.

    overhead: latency of the batch over the base model's, minus 1. One call prices the whole grid.
    """
    import pandas as pd

    rank, batch = (grid.ravel().astype(float) for grid in np.meshgrid(ranks, batches, indexing="ij"))
    adapter = replace(lora or LoraConfig(), rank=rank, strategy="dynamic", enabled=True)
    base = simulate(model, hardware, batch, input_tokens, output_tokens, lora=replace(adapter, enabled=False))
    dynamic = simulate(model, hardware, batch, input_tokens, output_tokens, lora=adapter)
    return pd.DataFrame({"rank": rank, "batch": batch, "overhead": dynamic.latency_s / base.latency_s - 1.0})


def plot_overhead(
    frame: pd.DataFrame, *, x: str = "batch", y: str = "rank", value: str = "overhead", ax: Axes | None = None
) -> Axes:
    """A heat map of a figure over two columns, in percent; `overhead_frame` makes such a frame."""
    _require(frame, [x, y, value])
    ax = ax or _axes()
    table = frame.pivot_table(index=y, columns=x, values=value, aggfunc="mean").sort_index(ascending=False)
    percent = 100 * table.to_numpy(dtype=float)
    ax.imshow(percent, cmap="YlOrBr", aspect="auto")
    ax.set_xticks(range(len(table.columns)), [f"{v:g}" for v in table.columns])
    ax.set_yticks(range(len(table.index)), [f"{v:g}" for v in table.index])
    middle = (np.nanmin(percent) + np.nanmax(percent)) / 2 if np.isfinite(percent).any() else 0.0
    for (i, j), cell in np.ndenumerate(percent):
        text = f"{cell:.1f} %" if np.isfinite(cell) else "–"
        ax.text(j, i, text, ha="center", va="center", color="white" if cell > middle else INK, fontsize="small")
    ax.set_xlabel(x.replace("_", " "))
    ax.set_ylabel(y.replace("_", " "))
    ax.set_title(f"LoRA {value} over the base model" if value == "overhead" else value)
    return ax


def pareto_rows(low: Any, high: Any) -> np.ndarray:
    """Which rows no other beats: none has less of `low` and no less of `high`, or the other way round.

    Rows without finite figures are never among them.
    """
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    finite = np.isfinite(low) & np.isfinite(high)
    kept = np.zeros(low.shape, dtype=bool)
    order = np.lexsort((-high, low))
    best, best_low = -np.inf, np.nan
    for i in order[finite[order]]:
        if high[i] > best or (high[i] == best and low[i] == best_low):
            kept[i] = True
            best, best_low = high[i], low[i]
    return kept


def plot_pareto(
    frame: pd.DataFrame, *, x: str = "tpot_s", y: str = "tokens_per_s", by: str | None = None, ax: Axes | None = None
) -> Axes:
    """All rows of a sweep by a figure to keep low and one to raise, with the front that nothing beats."""
    _require(frame, [x, y, *([by] if by else [])])
    ax = ax or _axes()
    (fx, label_x), (fy, label_y) = _SCALES.get(x, (1.0, x)), _SCALES.get(y, (1.0, y))
    groups: list[tuple[Any, pd.DataFrame]] = [("", frame)] if by is None else list(frame.groupby(by, sort=False))
    for (name, group), colour in zip(groups, _LINES * (1 + len(groups) // len(_LINES)), strict=False):
        ax.scatter(group[x] * fx, group[y] * fy, s=22, alpha=0.7, color=colour, label=f"{by} = {name}" if by else None)
    front = frame[pareto_rows(frame[x], frame[y])].sort_values(x)
    ax.step(front[x] * fx, front[y] * fy, where="post", color=CRITICAL, lw=1.4, label="Pareto front")
    ax.set_xlabel(label_x)
    ax.set_ylabel(label_y)
    ax.legend(frameon=False)
    return _tidy(ax, grid="both")


def _require(frame: pd.DataFrame, columns: list[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        choices = choices_text(missing[0], map(str, frame.columns))
        raise ConfigError(f"the frame has no column '{missing[0]}'; {choices}")


def _subplots(columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise needs("matplotlib", "plot") from None
    return pyplot.subplots(1, columns, figsize=size)


def _axes() -> Axes:
    axes: Axes = _subplots(1, (7.5, 4.5))[1]
    return axes


def _tidy(ax: Axes, *, grid: str) -> Axes:
    ax.grid(axis=grid, color="#dbe2ea", lw=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax
