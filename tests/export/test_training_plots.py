"""Matplotlib pictures of training steps and sweeps show their numbers."""

from __future__ import annotations

import pytest

import graphsim as gs
from graphsim.training.plots import plot_memory_timeline, plot_peak, plot_ways
from tests.training.steps import lora_step

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
GIB = 2.0**30


@pytest.mark.slow
def test_a_step_has_three_panels():
    figure = lora_step().plot()
    assert len(figure.axes) == 3
    assert "llama-3.2-1b" in figure.get_suptitle()
    matplotlib.pyplot.close(figure)


def test_memory_panels_hold_what_the_estimate_says():
    memory = lora_step().memory
    line = plot_memory_timeline(lora_step()).lines[0].get_ydata()
    assert list(line) == pytest.approx([float(size) / GIB for _, size in memory.timeline])
    bars = plot_peak(lora_step()).patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(float(memory.total_bytes) / GIB)
    matplotlib.pyplot.close("all")


def test_ways_are_told_apart_by_the_columns_named():
    lora = gs.LoraConfig(rank=8, target_modules=["q_proj"])
    frame = gs.sweep_training("llama-3.2-1b", "h100-sxm", method=["full", "lora"], seq_len=64, lora=lora)
    figure = plot_ways(frame, ["method", "seq_len"])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["full, 64", "lora, 64"]
    matplotlib.pyplot.close(figure)
    with pytest.raises(gs.ConfigError, match="the table has no column 'metod'; did you mean 'method'"):
        plot_ways(frame, ["metod"])
