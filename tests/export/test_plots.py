"""Plots show the numbers they are given."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.display import panels
from graphsim.display.notebook import MOST_ROWS, estimate_html, frame_html, phase_html
from graphsim.export import plots

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture(scope="module")
def sweep() -> pd.DataFrame:
    rows = []
    for hardware in ("l4", "h100-sxm"):
        batch = np.array([1.0, 4.0, 16.0])
        e = gs.simulate("llama-3.2-1b", hardware, batch=batch, output_tokens=8, engine="reference")
        figures = {"tpot_s": e.tpot_s, "tokens_per_s": e.tokens_per_s}
        rows.append(pd.DataFrame({"hardware": hardware, "batch": batch, **figures}))
    return pd.concat(rows, ignore_index=True)


def test_lines_of_a_sweep_go_through_its_rows(sweep):
    ax = plots.plot_latency(sweep, by="hardware")
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert set(lines) == {"hardware = l4", "hardware = h100-sxm"}
    drawn = lines["hardware = l4"].get_ydata()
    assert np.allclose(drawn, sweep[sweep.hardware == "l4"].tpot_s * 1e3)
    assert "ms" in ax.get_ylabel()


def test_batches_are_written_as_numbers(sweep):
    ax = plots.plot_latency(sweep, by="hardware")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "4", "16"]


def test_a_line_with_two_values_at_one_place_names_what_differs(sweep):
    with pytest.raises(gs.ConfigError, match="2 rows have batch = 1, which differ in hardware; .* give `by`"):
        plots.plot_latency(sweep)


def test_infeasible_rows_are_left_out(sweep):
    holed = sweep.assign(tpot_s=sweep.tpot_s.where(sweep.batch != 4))
    assert len(plots.plot_latency(holed[holed.hardware == "l4"]).get_lines()[0].get_xdata()) == 2


@pytest.mark.parametrize("engine", ["reference", "vllm"])
def test_the_grid_of_overheads_equals_single_comparisons(engine):
    frame = plots.overhead_frame("llama-3.2-1b", "l4", ranks=(8, 64), batches=(1, 16), output_tokens=8, engine=engine)
    assert len(frame) == 4
    for _, row in frame.iterrows():
        lora = gs.LoraConfig(rank=int(row["rank"]))
        alone = gs.compare_lora("llama-3.2-1b", "l4", batch=int(row.batch), output_tokens=8, lora=lora, engine=engine)
        assert row.overhead == pytest.approx(alone.overhead["dynamic"], rel=1e-9)


def test_the_heat_map_states_every_overhead_in_percent():
    frame = pd.DataFrame({"rank": [8, 8, 16, 16], "batch": [1, 2, 1, 2], "overhead": [0.1, 0.2, 0.3, np.nan]})
    ax = plots.plot_overhead(frame)
    assert sorted(text.get_text() for text in ax.texts) == ["10.0%", "20.0%", "30.0%", "–"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["16", "8"]
    colours = {text.get_text(): text.get_color() for text in ax.texts}
    assert colours["30.0%"] == "white" != colours["10.0%"]


values = st.floats(0, 10) | st.sampled_from([1.0, 2.0, float("nan")])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, values), max_size=12))
def test_the_front_is_what_no_row_beats(points):
    low = np.array([p[0] for p in points])
    high = np.array([p[1] for p in points])

    def beaten(i):
        better = (low <= low[i]) & (high >= high[i]) & ((low < low[i]) | (high > high[i]))
        return bool(better.any())

    expected = [bool(np.isfinite(low[i]) and np.isfinite(high[i])) and not beaten(i) for i in range(len(low))]
    assert list(plots.pareto_rows(low, high)) == expected


def test_a_pareto_plot_shows_all_rows_and_the_front(sweep):
    ax = plots.plot_pareto(sweep, by="hardware")
    assert sum(len(c.get_offsets()) for c in ax.collections) == len(sweep)
    front = ax.get_lines()[0]
    assert len(front.get_xdata()) == plots.pareto_rows(sweep.tpot_s, sweep.tokens_per_s).sum()


def test_the_overview_of_an_estimate_has_its_three_panels(estimates, tmp_path):
    figure = panels.plot_estimate(estimates["tp2"])
    figure.savefig(tmp_path / "e.png")
    assert len(figure.axes) == 3
    shares, roof, memory = figure.axes
    widths = sum(patch.get_width() for patch in shares.patches)
    assert widths == pytest.approx(200.0)
    total = sum(patch.get_width() for patch in memory.patches) * 2**30
    assert total == pytest.approx(float(estimates["tp2"].memory.total_bytes))
    assert roof.get_xscale() == roof.get_yscale() == "log"
    named = [text.get_text() for text in roof.get_legend().get_texts()]
    assert named == ["prefill", "decode", "bf16: 989.4 Tflop/s", "vector units: 66.9 Tflop/s"]


def test_a_roofline_of_its_own_names_colours_too(estimates):
    named = [text.get_text() for text in panels.plot_roofline(estimates["tp2"]).get_legend().get_texts()]
    assert {"prefill", "decode", "attention", "LoRA", "communication"} <= set(named)


def test_estimates_and_steps_plot_themselves(estimates):
    estimate = estimates["tp2"]
    assert len(estimate.plot().axes) == 3
    for step in (estimate.prefill, estimate.decode):
        times, reached = step.plot().axes
        assert len(times.patches) >= 3 and reached.get_xscale() == reached.get_yscale() == "log"
        assert max(bar.get_width() for bar in times.patches) <= 1e3 * step.latency_s * (1 + 1e-9)


def test_a_missing_column_or_package_is_named(sweep, estimates, monkeypatch):
    with pytest.raises(gs.ConfigError, match="no column 'tpot'; did you mean 'tpot_s'"):
        plots.plot_latency(sweep, y="tpot")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(gs.ConfigError, match=r"graphsim-llm\[plot\]"):
        panels.plot_roofline(estimates["base"])


def test_notebooks_show_the_figures(estimates):
    text = estimate_html(estimates["merge"])
    assert "llama-3.1-8b on h100-sxm" in text and "16.2 GiB of 80 GiB" in text and "once, before serving" in text
    assert "feed-forward" in phase_html(estimates["merge"].prefill)
    many = gs.simulate("gpt-2", "l4", batch=[1, 2], output_tokens=2, engine="reference")
    assert "2 scenarios" in estimate_html(many) and " to " in estimate_html(many)


def test_sweeps_and_comparisons_show_themselves_with_units():
    table = gs.sweep(
        "gpt-2", ["l4", "h100-sxm"], batch=[1, 8], tp=[1, 5], strategy=["base", "dynamic"], engine="reference"
    )
    text = table._repr_html_()
    assert "16 rows<" in text and "in all rows model = gpt-2, precision = bf16, engine = reference" in text
    assert (
        "h100-sxm" in text and " ms<" in text and " GiB<" in text and " tokens/s<" in text and "allowed: 1, 2" in text
    )
    fitting = table[table.fits]
    assert "8 rows<" in fitting._repr_html_() and isinstance(fitting, pd.DataFrame)
    compared = gs.compare_lora("gpt-2", "l4", engine="reference")
    assert ">dynamic<" in compared._repr_html_() and "+0.00%" in compared._repr_html_()
    assert " ms<" in compared.T._repr_html_() and ">ttft_s<" in compared.T._repr_html_()
    assert ">memory_bandwidth<" in gs.sensitivity("gpt-2", "l4", engine="reference")._repr_html_()
    assert "0 rows" in table[:0]._repr_html_()


def test_tables_of_sweeps_are_frames_in_every_other_way(tmp_path):
    table = gs.sweep("gpt-2", "l4", batch=[1, 8], engine="reference")
    plain = pd.DataFrame(table.to_dict("list")).astype({"reason": "category"})
    pd.testing.assert_frame_equal(pd.DataFrame(table), plain, check_dtype=False, check_categorical=False)
    assert not isinstance(plain, type(table)) and type(pd.DataFrame(table)) is pd.DataFrame
    for derived in (table.copy(), table.head(1), pd.concat([table, table]), pickle.loads(pickle.dumps(table))):
        assert isinstance(derived, pd.DataFrame) and " ms" in derived._repr_html_()
    assert table.groupby("batch")["tpot_s"].min().index.tolist() == [1, 8]
    table.to_csv(tmp_path / "t.csv", index=False)
    assert pd.read_csv(tmp_path / "t.csv")["tpot_s"].tolist() == table["tpot_s"].tolist()


def test_notebooks_escape_what_they_show(sweep):
    varied = {"x_s": [0.001] * 29 + [float("nan")], "y": [float("nan")] * 10 + [1.0] * 20}
    frame = pd.DataFrame({"<b>": ["<script>"] * 30, "<i>": ["<script>", "a"] * 15, **varied})
    text = frame_html(frame, "<i>")
    assert "<script>" not in text and "&lt;script&gt;" in text and "1 ms" in text and "–" in text
    assert text.count("<tr>") == MOST_ROWS + 1 and "30 rows, the first 20" in text
