"""Matplotlib plots of served runs (extra `plot`), drawn on given axes or on new ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.display.axes import LINES, new_axes, subplots, tidy
from graphsim.display.palette import CRITICAL, MUTED
from graphsim.errors import ConfigError, choices_text
from graphsim.export.serving_series import Series, log_ticks, series_of
from graphsim.serving.goodput import Limits
from graphsim.serving.service_tables import BASE_NAME
from graphsim.serving.service_view import title_of
from graphsim.units import amount_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphsim.serving.served_run import ServedRun

LATENCIES = {"ttft_s": "time to first token", "tpot_s": "time per token", "e2e_s": "end to end"}


def plot_service(service: ServedRun) -> Figure:
    """A figure of requests, queue, batch and KV cache over time, and of the distributions of latencies."""
    figure, axes = subplots(2, (11.0, 9.0), rows=4)
    series = series_of(service)
    left = axes[:, 0]
    _rates(left[0], series)
    plot_queue(service, ax=left[1], series=series)
    _share(left[2], series, series.running, series.running_peak, LINES[2], "sequences in the batch")
    _share(left[3], series, series.kv, series.kv_peak, LINES[3], "KV cache, %")
    for ax in left[:3]:
        ax.sharex(left[3])
        ax.tick_params(labelbottom=False)
        ax.set_xlabel("")
    left[3].set_xlabel("simulated time, s")
    for ax, name in zip(axes[:3, 1], LATENCIES, strict=True):
        plot_distribution([service], name=name, ax=ax)
    plot_waits(service, ax=axes[3, 1])
    figure.suptitle(title_of(service))
    figure.tight_layout()
    return figure


def _rates(ax: Axes, series: Series) -> None:
    ax.step(series.at_s, series.sent, where="mid", color=LINES[0], lw=1.2, label="sent")
    ax.step(series.at_s, series.answered, where="mid", color=LINES[1], lw=1.2, label="answered")
    ax.set_ylabel("requests per second")
    ax.legend(frameon=False, fontsize="small", ncols=2)
    ax.set_ylim(bottom=0)
    tidy(ax, grid="both")


def _share(ax: Axes, series: Series, means: Any, peaks: Any, colour: str, label: str) -> None:
    ax.step(series.at_s, peaks, where="mid", color=MUTED, lw=0.7, label="peak")
    ax.fill_between(series.at_s, means, step="mid", color=colour, alpha=0.25, lw=0)
    ax.step(series.at_s, means, where="mid", color=colour, lw=1.2, label="mean")
    ax.set_ylabel(label)
    ax.set_ylim(bottom=0)
    tidy(ax, grid="both")


def plot_queue(service: ServedRun, *, ax: Axes | None = None, series: Series | None = None) -> Axes:
    """Plot the number of waiting requests over time."""
    ax, series = ax or new_axes(), series or series_of(service)
    _share(ax, series, series.waiting, series.waiting_peak, LINES[0], "requests in the queue")
    ax.set_xlabel("simulated time, s")
    return ax


def plot_distribution(
    services: Sequence[ServedRun],
    *,
    name: str = "ttft_s",
    labels: Sequence[str] = (),
    limit_s: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the cumulative distribution of a latency over answered requests, one line per run, with the limit.

    name: `ttft_s`, `tpot_s` or `e2e_s`
    labels: one per run
    limit_s: limit in seconds, in place of the tightest of the runs' classes
    ax: axes to draw on, None for new ones
    Raises ConfigError for another name, or if the numbers of labels and runs differ.
    """
    if name not in LATENCIES:
        raise ConfigError(f"name = {name!r} is not allowed; {choices_text(name, LATENCIES)}")
    if labels and len(labels) != len(services):
        raise ConfigError(f"{len(labels)} labels for {len(services)} runs; expected one each")
    ax = ax or new_axes()
    shares = np.concatenate([np.linspace(0, 99, 100), np.linspace(99, 100, 21)[1:]])
    for i, service in enumerate(services):
        values = getattr(service.latencies, name)
        values = values[service.latencies.done & np.isfinite(values)]
        if len(values):
            colour = LINES[i % len(LINES)]
            ax.plot(np.percentile(values, shares), shares, color=colour, label=labels[i] if labels else None)
    limit = _tightest([one for service in services for one in service.classes], name) if limit_s is None else limit_s
    if limit < inf:
        ax.axvline(limit, color=CRITICAL, ls="--", lw=1.2, label=f"limit {amount_text(limit)} s")
    _log(ax, "x", [float(x) for line in ax.get_lines() for x in np.asarray(line.get_xdata())])
    ax.set_xlabel(f"{LATENCIES[name]}, s")
    ax.set_ylabel("% of requests")
    ax.set_ylim(0, 101)
    if labels or limit < inf:
        ax.legend(frameon=False, fontsize="small")
    return tidy(ax, grid="both")


def _log(ax: Axes, which: str, values: Iterable[float]) -> None:
    """Make the x or y axis logarithmic, with plain numbers as labels and a range that covers all values."""
    low, high, ticks = log_ticks(values)
    if high <= low:
        return
    scale, place, ends = (ax.set_xscale, ax.set_xticks, ax.set_xlim) if which == "x" else (
        ax.set_yscale, ax.set_yticks, ax.set_ylim,
    )  # fmt: skip
    scale("log")
    ax.minorticks_off()
    place(ticks, labels=[amount_text(tick) for tick in ticks])
    ends(10.0**low, 10.0**high)


def _tightest(limits: Sequence[Limits], name: str) -> float:
    return min((float(getattr(one, name)) for one in limits), default=inf)


def plot_waits(service: ServedRun, *, ax: Axes | None = None) -> Axes:
    """Plot the median and p99 of each adapter's time to first token over its number of requests."""
    ax = ax or new_axes()
    frame = service.adapters
    if service.adapter_names:
        frame = frame[frame.adapter != BASE_NAME]
    frame = frame[frame.completed > 0]
    for column, colour, label in (("p50_ttft_s", LINES[0], "median"), ("p99_ttft_s", CRITICAL, "p99")):
        ax.scatter(frame.requests, frame[column], s=16, alpha=0.7, color=colour, label=label)
    if len(frame):
        _log(ax, "x", frame.requests)
        _log(ax, "y", [*frame.p50_ttft_s, *frame.p99_ttft_s])
        ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel("requests for the adapter" if service.adapter_names else "requests for the base model")
    ax.set_ylabel("time to first token, s")
    return tidy(ax, grid="both")
