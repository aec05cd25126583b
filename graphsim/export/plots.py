"""Matplotlib plots of sweeps and of several estimates (extra `plot`), drawn on given axes or on new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.deployment.deployment import DEFAULT_ENGINE, EngineRef, HardwareRef, ModelRef
from graphsim.display.axes import LINES, new_axes, tidy
from graphsim.display.palette import CRITICAL, INK
from graphsim.errors import ConfigError, choices_text
from graphsim.lora.config import LoraConfig
from graphsim.simulation import simulate
from graphsim.units import amount_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_SCALES = {
    "ttft_s": (1e3, "time to first token, ms"),
    "tpot_s": (1e3, "time per token, ms"),
    "latency_s": (1.0, "latency of the batch, s"),
    "tokens_per_s": (1.0, "generated tokens per second"),
    "tokens_per_s_per_gpu": (1.0, "generated tokens per second and device"),
    "energy_per_token_j": (1.0, "joules per generated token"),
    "watts": (1.0, "watts of a device"),
}


_RESULTS = ("_s", "_j", "watts", "_bytes", "_per_gpu")
"""Suffixes of the columns with a sweep's figures; all other columns are choices."""


def plot_latency(
    frame: pd.DataFrame, *, y: str = "tpot_s", x: str = "batch", by: str | None = None, ax: Axes | None = None
) -> Axes:
    """Plot a figure of a sweep over the batch (or another column), one line per value of `by`.

    frame: a sweep's rows; rows without the figure (infeasible ones) are left out
    y: column of the figure
    x: column of numbers above 0
    by: column that distinguishes lines
    ax: axes to draw on, None for new ones
    Raises ConfigError for a missing column, and if a line would have several values at the same x.
    """
    _require(frame, [x, y, *([by] if by else [])])
    ax = ax or new_axes()
    factor, label = _SCALES.get(y, (1.0, y))
    rows = frame[np.isfinite(frame[y].astype(float))]
    groups: list[tuple[Any, pd.DataFrame]] = [("", rows)] if by is None else list(rows.groupby(by, sort=False))
    for (name, group), colour in zip(groups, LINES * (1 + len(groups) // len(LINES)), strict=False):
        ordered = group.sort_values(x)
        _require_single(ordered, x, [x, y, *([by] if by else [])])
        ax.plot(ordered[x], ordered[y] * factor, marker="o", color=colour, label=f"{by} = {name}" if by else None)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(set(rows[x])), labels=[amount_text(value) for value in sorted(set(rows[x]))])
    ax.minorticks_off()
    ax.set_xlabel(x.replace("_", " "))
    ax.set_ylabel(label)
    ax.set_ylim(bottom=0)
    if by:
        ax.legend(frameon=False)
    return tidy(ax, grid="both")


def overhead_frame(
    model: ModelRef,
    hardware: HardwareRef,
    *,
    ranks: Sequence[float] = (8, 16, 32, 64, 128),
    batches: Sequence[float] = (1, 4, 16, 64),
    lora: LoraConfig | None = None,
    input_tokens: float = 512,
    output_tokens: float = 128,
    engine: EngineRef = DEFAULT_ENGINE,
) -> pd.DataFrame:
    """Overhead of a dynamic adapter over the base model for every rank and batch: columns rank, batch, overhead.

    overhead: latency of the batch over the base model's, minus 1
    engine: engine whose kernels apply the adapter
    One call prices the whole grid. Raises as `simulate` does.
    """
    import pandas as pd

    rank, batch = (grid.ravel().astype(float) for grid in np.meshgrid(ranks, batches, indexing="ij"))
    adapter = replace(lora or LoraConfig(), rank=rank, strategy="dynamic", enabled=True)
    base, dynamic = (
        simulate(model, hardware, batch, input_tokens, output_tokens, lora=replace(adapter, enabled=on), engine=engine)
        for on in (False, True)
    )
    return pd.DataFrame({"rank": rank, "batch": batch, "overhead": dynamic.latency_s / base.latency_s - 1.0})


def plot_overhead(
    frame: pd.DataFrame, *, x: str = "batch", y: str = "rank", value: str = "overhead", ax: Axes | None = None
) -> Axes:
    """Plot a heat map of a figure over two columns, in percent; `overhead_frame` makes such a frame."""
    _require(frame, [x, y, value])
    ax = ax or new_axes()
    table = frame.pivot_table(index=y, columns=x, values=value, aggfunc="mean").sort_index(ascending=False)
    percent = 100 * table.to_numpy(dtype=float)
    image = ax.imshow(percent, cmap="YlOrBr", aspect="auto")
    ax.set_xticks(range(len(table.columns)), [amount_text(float(v)) for v in table.columns])
    ax.set_yticks(range(len(table.index)), [amount_text(float(v)) for v in table.index])
    for (i, j), cell in np.ndenumerate(percent):
        text = f"{cell:.1f}%" if np.isfinite(cell) else "–"
        light = np.dot(image.to_rgba(cell)[:3], (0.299, 0.587, 0.114)) > 0.5
        ax.text(j, i, text, ha="center", va="center", color=INK if light else "white", fontsize="small")
    ax.set_xlabel(x.replace("_", " "))
    ax.set_ylabel(y.replace("_", " "))
    ax.set_title("latency that LoRA adds to the base model" if value == "overhead" else value)
    return ax


def pareto_rows(low: Any, high: Any) -> np.ndarray:
    """Mask of the Pareto-optimal rows, with `low` minimised and `high` maximised: no other row is better in one of them
    and at least as good in the other.

    Rows without finite figures are never Pareto-optimal.
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
    """Scatter plot of a sweep's rows by a figure to minimise and one to maximise, with the Pareto front."""
    _require(frame, [x, y, *([by] if by else [])])
    ax = ax or new_axes()
    (fx, label_x), (fy, label_y) = _SCALES.get(x, (1.0, x)), _SCALES.get(y, (1.0, y))
    groups: list[tuple[Any, pd.DataFrame]] = [("", frame)] if by is None else list(frame.groupby(by, sort=False))
    for (name, group), colour in zip(groups, LINES * (1 + len(groups) // len(LINES)), strict=False):
        ax.scatter(group[x] * fx, group[y] * fy, s=22, alpha=0.7, color=colour, label=f"{by} = {name}" if by else None)
    front = frame[pareto_rows(frame[x], frame[y])].sort_values(x)
    ax.step(front[x] * fx, front[y] * fy, where="post", color=CRITICAL, lw=1.4, label="Pareto front")
    ax.set_xlabel(label_x)
    ax.set_ylabel(label_y)
    ax.legend(frameon=False)
    return tidy(ax, grid="both")


def _require_single(group: pd.DataFrame, x: str, known: list[str]) -> None:
    """Raise ConfigError if a line has several values at the same x, naming the column in which they differ."""
    twice = group[group[x] == group.loc[group[x].duplicated(), x].min()]
    if twice.empty:
        return
    choices = [name for name in twice.columns if name not in known and not str(name).endswith(_RESULTS)]
    differ = [str(name) for name in choices if twice[name].nunique(dropna=False) > 1]
    what = f", which differ in {', '.join(differ)}" if differ else ""
    raise ConfigError(
        f"{len(twice)} rows have {x} = {amount_text(twice[x].iloc[0])}{what}; choose among them, or give `by`"
    )


def _require(frame: pd.DataFrame, columns: list[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        choices = choices_text(missing[0], map(str, frame.columns))
        raise ConfigError(f"the frame has no column '{missing[0]}'; {choices}")
