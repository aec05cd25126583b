"""Plot of the ratio of estimate to measurement over the size of the kernel (extra `plot`)."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.display.axes import LINES, subplots, tidy
from graphsim.errors import ConfigError
from graphsim.validation.residuals import LIMITS, size_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WITHOUT = {"device": "without the device's own calibration", "generation": "without its generation's either"}

_SHOWN = 4.0
"""Largest ratio, in either direction, that the axis shows."""

_HEIGHT, _LEGEND = 2.3, 0.5
"""Inches of a row of panels, and of the legend above them."""


def plot_residuals(found: pd.DataFrame) -> Figure:
    """Predicted over measured latency, one panel per class of kernels and one line per device.

    found: rows of `residuals`, or of `unmeasured_residuals`, whose two parts are next to each other
    Lines are medians of all kernels of a size (within a factor of two), the area around them covers 80 % of them; the
    grey band is the limit for a device that was never measured. Raises ConfigError if there is nothing to draw, and if
    Matplotlib is not installed.
    """
    kernels = [name for name in LIMITS if name in set(found["kernels"])]
    if not kernels:
        raise ConfigError(f"there are no residuals to draw; residuals can be drawn for {', '.join(LIMITS)}")
    names = list(found["device"].unique())
    colours = dict(zip(names, LINES * ceil(len(names) / len(LINES)), strict=False))
    apart = list(found["without"].unique()) if "without" in found.columns else [""]
    panels = [(name, without) for name in kernels for without in apart]
    rows = ceil(len(panels) / 2)
    figure, axes = subplots(2, (10.0, _HEIGHT * rows + _LEGEND), rows=rows)
    for ax in np.ravel(axes)[len(panels) :]:
        ax.set_axis_off()
    for ax, (name, without) in zip(np.ravel(axes), panels, strict=False):
        part = found[found["kernels"] == name]
        _panel(ax, part[part["without"] == without] if without else part, name, colours)
        ax.set_title(f"{name}, {_WITHOUT[without]}" if without else name, fontsize=9, loc="left")
    named: dict[str, Any] = {}
    for ax in np.ravel(axes):
        named |= zip(*reversed(ax.get_legend_handles_labels()), strict=True)
    figure.legend(list(named.values()), list(named), loc="upper center", ncols=len(named), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0.0, 0.0, 1.0, 1.0 - _LEGEND / (_HEIGHT * rows + _LEGEND)))
    return figure


def _panel(ax: Axes, part: pd.DataFrame, kernels: str, colours: dict[Any, str]) -> None:
    limit = LIMITS[kernels]
    ax.axhspan(1.0 / (1.0 + limit), 1.0 + limit, color="#64748b", alpha=0.15, lw=0)
    ax.axhline(1.0, color="#64748b", lw=0.8)
    for device, rows in part.groupby("device", sort=False):
        octave = np.round(np.log2(rows["size"].astype(float)))
        spread = rows["ratio"].groupby(octave).quantile(np.array([0.1, 0.5, 0.9])).unstack()
        sizes, colour = 2.0 ** spread.index.to_numpy(dtype=float), colours[device]
        ax.fill_between(sizes, spread[0.1], spread[0.9], color=colour, alpha=0.12, lw=0)
        ax.plot(sizes, spread[0.5], color=colour, lw=1.6, label=str(device))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_ylim(1.0 / _SHOWN, _SHOWN)
    ax.set_yticks([0.25, 0.5, 1.0, 2.0, 4.0], labels=["¼", "½", "1", "2", "4"])
    ax.minorticks_off()
    ax.set_xlabel(size_of(kernels)[1], fontsize=8)
    ax.set_ylabel("predicted / measured", fontsize=8)
    ax.tick_params(labelsize=8)
    tidy(ax, grid="both")
