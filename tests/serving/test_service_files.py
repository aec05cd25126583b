"""Files of a run hold its figures, in the forms that other tools read."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.serving.bench_files import read_bench
from graphsim.serving.over_time import OverTime, bins, columns_of, tokens_until
from graphsim.serving.service_files import conversations
from graphsim.serving.token_times import TokenTimes

from .hand_made import FINISHED_S, FIRST, OUTPUT, RUNS, hand_made

ENDED = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]


def strict(text: str) -> dict:
    def reject(value):
        raise ValueError(value)

    return json.loads(text, parse_constant=reject)


def test_the_result_file_is_vllms_with_details(tmp_path):
    service = hand_made()
    path = service.to_json(tmp_path / "r.json")
    found = strict(path.read_text())
    assert {"date", *service.summary()} <= set(found)
    assert found["mean_ttft_ms"] == pytest.approx(762.5) and found["completed"] == 8
    lists = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "errors")
    assert all(len(found[name]) == len(ENDED) for name in lists)
    assert found["ttfts"][:4] == pytest.approx([0.5, 0.5, 0.5, 0.6]) and found["errors"][4:7] == [
        "refused", "timed out", "too long",
    ]  # fmt: skip
    assert found["output_lens"] == [3, 5, 3, 1, 0, 0, 0, 5, 5, 5, 5]
    assert sorted(gap for gaps in found["itls"] for gap in gaps) == pytest.approx([0.25] * 23 + [1.0])
    lean = strict(service.to_json(tmp_path / "s.json", details=False, percentiles=(50,)).read_text())
    assert "ttfts" not in lean and "p50_itl_ms" in lean and "p99_itl_ms" not in lean


def test_gaps_of_a_request_are_its_steps_and_sum_to_its_time():
    times = TokenTimes(columns_of(RUNS))
    assert times.gaps(2.5, 3.5, 5) == pytest.approx([0.25] * 4)
    assert times.gaps(7.0, 8.75, 5) == pytest.approx([0.25, 0.25, 0.25, 1.0])  # the pause of the preempted comes last
    assert times.gaps(2.52, 3.52, 5) == pytest.approx([0.25] * 4)  # 20 ms from the server to the client's clock
    assert len(times.gaps(4.0, 4.0, 1)) == 0
    assert times.gaps(0.5, 1.5, 11) == pytest.approx([0.1] * 10)  # no such steps: all alike
    for i, finished in enumerate(FINISHED_S):
        if FIRST[i] == FIRST[i] and finished == finished:
            gaps = times.gaps(FIRST[i], finished, OUTPUT[i])
            assert len(gaps) == OUTPUT[i] - 1 and sum(gaps) == pytest.approx(finished - FIRST[i])


def test_records_are_aiperfs(tmp_path):
    path = hand_made().to_jsonl(tmp_path / "profile_export.jsonl")
    records = [strict(line) for line in path.read_text().splitlines()]
    assert len(records) == 10  # all but the refused one, which was never sent, and the one cut off
    last = records[-1]
    assert last["metrics"]["time_to_first_token"] == {"value": pytest.approx(1000.0), "unit": "ms"}
    assert last["metrics"]["inter_token_latency"]["value"] == pytest.approx(437.5)
    assert last["metrics"]["inter_chunk_latency"]["value"] == pytest.approx([250, 250, 250, 1000])
    assert last["metrics"]["request_latency"]["value"] == pytest.approx(2750.0)
    metadata = last["metadata"]
    assert metadata["request_start_ns"] == 6 * 10**9 and metadata["request_end_ns"] == 8_750_000_000
    assert metadata["adapter"] == "red" and metadata["turn_index"] == 0 and last["error"] is None
    given_up = records[4]
    assert given_up["metadata"]["was_cancelled"] and given_up["error"]["type"] == "timed out"
    assert given_up["metadata"]["request_end_ns"] == 5_700_000_000
    assert given_up["metrics"] == {"error_isl": {"value": 8, "unit": "tokens"}}


def test_files_are_read_back_as_the_run_that_they_are_of(tmp_path):
    service = hand_made()
    summary = service.summary()
    for path in (service.to_json(tmp_path / "r.json"), service.to_jsonl(tmp_path / "r.jsonl")):
        found = read_bench(path).figures
        assert (found["completed"], found["failed"]) == (8, 3 if path.suffix == ".json" else 2)  # one was never sent
        for name in ("mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_e2el_ms", "total_output_tokens"):
            assert found[name] == pytest.approx(summary[name], rel=1e-6), (path, name)


def test_turns_of_a_conversation_are_counted_from_its_first():
    first, turn = conversations(np.array([-1, 0, -1, 1, 2, 3]))
    assert first.tolist() == [0, 0, 2, 0, 2, 0] and turn.tolist() == [0, 1, 0, 2, 1, 3]


def test_parquet_holds_the_tables(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("graphsim.serving.service_files.ROWS", 5)
    service = hand_made()
    folder = service.to_parquet(tmp_path / "run")
    assert sorted(path.name for path in folder.iterdir()) == ["adapters.parquet", "requests.parquet", "steps.parquet"]
    requests = pd.read_parquet(folder / "requests.parquet")
    pd.testing.assert_frame_equal(requests, service.requests, check_categorical=False)
    assert list(requests.adapter.dropna().unique()) == ["red", "blue", "green"]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "steps.parquet"), service.steps)
    assert pd.read_parquet(folder / "adapters.parquet").loads.sum() == 4


def test_what_cannot_be_written_is_explained(tmp_path, monkeypatch):
    service = hand_made()
    (tmp_path / "file").write_text("")
    for write in (service.to_json, service.to_jsonl):
        with pytest.raises(gs.ConfigError, match="cannot be written"):
            write(tmp_path / "none" / "r")
    with pytest.raises(gs.ConfigError, match="folder = .*cannot be made"):
        service.to_parquet(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(gs.ConfigError, match=r"graphsim-llm\[parquet\]"):
        service.to_parquet(tmp_path / "run")


def test_means_and_peaks_over_time_count_idle_time():
    over = OverTime(columns=columns_of([*RUNS[1:], RUNS[0]]))
    assert over.columns["start_s"].tolist() == sorted(row[0] for row in RUNS)
    batch = over.columns["batch"]
    edges = np.array([0.0, 1.0, 2.0, 3.0, 7.0, 7.25])
    assert over.means(batch, edges) == pytest.approx([0.5, 0.0, 1.0, 0.125, 4.0])
    assert over.peaks(batch, edges) == pytest.approx([1.0, 0.0, 2.0, 1.0, 4.0])
    assert over.peaks(batch, np.array([7.0, 7.1, 7.2, 7.3, 7.4])) == pytest.approx([4.0] * 4)
    assert over.mean(batch, 3.0, 3.0) == 0.0


def test_tokens_come_evenly_behind_the_first():
    first, finished, outputs = np.array([1.0, 2.0]), np.array([3.0, 2.0]), np.array([5.0, 1.0])
    found = tokens_until(np.array([0.0, 1.5, 2.5, 9.0]), first, finished, outputs)
    assert found == pytest.approx([0.0, 2.0, 5.0, 6.0])


def test_bins_have_round_widths_and_cover_the_run():
    assert bins(3600.0)[[0, 1, -1]] == pytest.approx([0.0, 20.0, 3600.0])
    for end in (0.003, 1.0, 59.9, 3600.0, 86400.0):
        edges = bins(end)
        assert edges[-1] >= end * (1 - 1e-9) and len(edges) <= 302
