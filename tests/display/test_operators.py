"""The operator table says what the graph says."""

from __future__ import annotations

import numpy as np
import pytest

import graphsim as gs
from graphsim.display.operators import AFTER, BEFORE, TIMES, WORK, frame_of
from graphsim.graph import total_work, walk


def test_one_row_per_operation_with_its_full_name_and_how_often_it_runs(graphs):
    for graph in graphs.values():
        frame = frame_of(graph)
        assert list(frame.name) == [name for name, _, _ in walk(graph)]
        assert list(frame.times) == [times for _, _, times in walk(graph)]
        assert list(frame.op) == [type(op).__name__ for _, op, _ in walk(graph)]


def test_rows_times_their_counts_add_up_to_the_total_work(graphs):
    for label in ("plain", "tp2", "decode", "windows", "unrolled"):
        frame = frame_of(graphs[label])
        steady = frame[~frame.once]
        total = total_work(graphs[label])
        for column in WORK:
            expected = float(getattr(total, column))
            assert (steady[column] * steady.times).sum() == pytest.approx(expected, rel=1e-12), column


def test_a_single_stream_adds_up_to_the_latency(estimates):
    frame = estimates["dynamic"].prefill.to_frame()
    assert (frame.latency_s * frame.times).sum() == pytest.approx(estimates["dynamic"].ttft_s, rel=1e-9)


def test_one_time_work_is_marked_and_has_no_place_in_the_schedule(graphs):
    frame = frame_of(graphs["merge"])
    merges = frame[frame.op_type == "LORA_MERGE"]
    assert merges.once.all() and len(merges) == 2
    assert merges.start_s.isna().all()


def test_columns_of_later_passes_appear_with_the_pass(graphs):
    assert not set(TIMES) & set(frame_of(graphs["plain"]).columns)
    annotated = frame_of(graphs["annotated"])
    assert {"latency_s", "bound"} <= set(annotated.columns) and "critical" not in annotated.columns
    scheduled = frame_of(graphs["base"])
    assert {*BEFORE, *AFTER} <= set(scheduled.columns)
    assert set(scheduled.bound) <= {"none", "compute", "memory", "network", "launch"}


def test_dimensions_are_columns_and_text(graphs):
    frame = frame_of(graphs["plain"]).set_index("name")
    row = frame.loc["layers_0_31.q_proj.lora_a"]
    assert (row.m, row.n, row.k) == (256.0, 16.0, 4096.0)
    assert row.dims.startswith("m=256 n=16 k=4096")
    assert row.flops == 2 * 256 * 16 * 4096


def test_a_table_over_scenarios_shows_the_one_asked_for(graphs):
    for scenario, (batch, tokens) in enumerate([(1, 64), (2, 128), (3, 256)]):
        single = frame_of(gs.build_graph("gpt2", batch=batch, input_tokens=tokens))
        chosen = frame_of(graphs["scenarios"], scenario)
        assert np.allclose(single[list(WORK)], chosen[list(WORK)], rtol=1e-12)
    with pytest.raises(gs.ConfigError, match="scenario = 3 is not allowed.*0 to 2"):
        frame_of(graphs["scenarios"], 3)


def test_an_empty_graph_is_an_empty_table():
    import networkx as nx

    assert list(frame_of(nx.DiGraph()).columns)[:2] == ["name", "op"]


def test_a_table_survives_csv(graphs, tmp_path):
    import pandas as pd

    frame = frame_of(graphs["dynamic"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    back = pd.read_csv(tmp_path / "t.csv")
    assert list(back.columns) == list(frame.columns)
    assert np.allclose(back.latency_s, frame.latency_s, rtol=1e-12)
