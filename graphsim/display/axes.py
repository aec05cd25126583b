"""Matplotlib figures and axes shared by all plots (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError, needs
from graphsim.files.written import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#78716c", "#0891b2", "#b45309", "#dc2626")
"""Colours of lines and groups, distinguishable in light and dark themes."""


def subplots(columns: int, size: tuple[float, float], *, rows: int = 1) -> tuple[Figure, Any]:
    """A figure with a grid of panels. Raises ConfigError if Matplotlib is not installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise needs("matplotlib", "plot") from None
    return pyplot.subplots(rows, columns, figsize=size)


def new_axes() -> Axes:
    """Axes of a new figure."""
    axes: Axes = subplots(1, (7.5, 4.5))[1]
    return axes


def tidy(ax: Axes, *, grid: str) -> Axes:
    """The axes with a light grid and without the top and right spines."""
    ax.grid(axis=grid, color="#dbe2ea", lw=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


PICTURES = (".png", ".svg", ".pdf")
"""Suffixes of picture files that a figure can be saved to."""


def save(figure: Figure, path: Path, option: str) -> None:
    """Save a figure to a file; text in an SVG stays text. Raises ConfigError naming the option if that fails."""
    from matplotlib import rc_context

    try:
        with whole(path) as file, rc_context({"svg.fonttype": "none"}):
            figure.savefig(file, dpi=150, bbox_inches="tight")
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None
