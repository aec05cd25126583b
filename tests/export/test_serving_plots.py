"""Plots of served runs show the numbers they are given."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import graphsim as gs
from graphsim.export import serving_plots as plots
from tests.serving.hand_made import hand_made

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def test_a_distribution_goes_through_the_percentiles_up_to_the_limit():
    service = hand_made()
    ax = plots.plot_distribution([service, service], labels=["<a>", "b"])
    first, second, limit = ax.get_lines()
    x, y = first.get_data()
    done = service.latencies.ttft_s[service.latencies.done]
    assert x == pytest.approx(np.percentile(done, y)) and (y[0], y[-1]) == (0.0, 100.0)
    assert list(limit.get_xdata()) == [0.55, 0.55]  # the tightest of the classes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["<a>", "b", "limit 0.55 s"]
    with pytest.raises(gs.ConfigError, match="name = 'ttft' is not allowed; did you mean 'ttft_s'"):
        plots.plot_distribution([service], name="ttft")
    with pytest.raises(gs.ConfigError, match="1 labels for 2 runs"):
        plots.plot_distribution([service, service], labels=["a"])


def test_adapters_are_points():
    ax = plots.plot_waits(hand_made())
    median, p99 = (collection.get_offsets().tolist() for collection in ax.collections)
    assert median == [[5, 1.0], [3, 0.75], [1, pytest.approx(0.6)]] and p99[0] == [5, pytest.approx(1.0)]


@pytest.mark.slow
def test_the_overview_shares_one_clock(tmp_path):
    figure = plots.plot_service(hand_made())
    figure.savefig(tmp_path / "run.png")
    left = figure.axes[::2]
    assert len(figure.axes) == 8 and len({ax.get_xlim() for ax in left}) == 1
    sent = left[0].get_lines()[0].get_ydata()
    assert max(sent) > 0 and left[3].get_ylabel() == "KV cache, %"


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(gs.ConfigError, match=r"graphsim-llm\[plot\]"):
        plots.plot_queue(hand_made())
