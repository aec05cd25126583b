"""Each layout gives the requests that stand in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graphsim.traffic.formats import Trace, read_trace
from graphsim.traffic.table import BASE, NOBODY
from tests.paths import REFERENCE
from tests.traffic.formats import files

TRACES = REFERENCE / "traces"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def reading(text: str, name: str = "trace.csv", **options: Any) -> Trace:
        path = tmp_path / name
        path.write_text(text)
        return read_trace(path, **options)

    return reading


def columns(trace: Trace) -> tuple[list[float], list[int], list[int]]:
    table = trace.table
    return table.arrival_s.round(6).tolist(), table.input_tokens.tolist(), table.output_tokens.tolist()


def test_plain_and_vidur_rows_are_requests(read: Any) -> None:
    assert columns(read(files.PLAIN)) == ([0.0, 4.3146, 4.5], [374, 396, 12], [44, 109, 1])
    assert columns(read(files.VIDUR)) == ([0.0, 1.25], [1000, 2000], [100, 20])
    assert columns(read(files.MEASURED)) == ([0.0, 0.2651], [2358, 1034], [531, 769])


@pytest.mark.parametrize(
    "text, times", [(files.AZURE_2023, [0.0, 4.314579, 4.541977]), (files.AZURE_2024, [0, 0.00993, 2])]
)
def test_azure_dates_become_seconds(read: Any, text: str, times: list[float]) -> None:
    assert columns(read(text)) == (times, [374, 396, 879], [44, 109, 55])


def test_burstgpt_s_failures_are_left_out_and_told(read: Any) -> None:
    found = read(files.BURSTGPT_1)
    assert columns(found) == ([0.0, 40.0, 115.0], [472, 1087, 417], [18, 230, 276])
    assert found.notes == ("requests without input or output tokens are left out: 1 of 4",)
    assert found.adapters == () and (found.table.adapter == BASE).all()
    assert columns(read(files.BURSTGPT_2)) == ([0.0, 51.0], [906, 36], [446, 29])


def test_burstgpt_s_models_are_adapters_if_asked(read: Any) -> None:
    found = read(files.BURSTGPT_1, adapter="Model", base="chatgpt")
    assert found.adapters == ("GPT-4",) and found.table.adapter.tolist() == [BASE, BASE, 0]


def test_mooncake_s_hashes_become_chains_of_512_tokens(read: Any) -> None:
    found = read(files.MOONCAKE, "trace.jsonl")
    assert columns(found) == ([0.0, 10.535, 27.482], [655, 672, 1030], [52, 26, 5])
    assert found.table.prefixes is not None
    first, second, third = (found.table.prefixes.of(row) for row in range(3))
    assert first[0] == second[0] and first[1] == [512, 655] and second[1] == [512, 672]
    assert third[0][0] == first[0][0] and third[0][1] not in first[0] and third[1] == [512, 1024, 1030]
    assert read(files.MOONCAKE, "trace.jsonl", prefixes=False).table.prefixes is None


def test_hashes_of_another_block_size_are_noticed(read: Any) -> None:
    found = read(files.MOONCAKE, "trace.jsonl", block_tokens=16)
    assert "hash_ids are not one for each 16 tokens: 3" in found.notes[0]
    ends = found.table.prefixes.of(0)[1]
    assert ends == [16, 32]


def test_bailian_s_times_are_seconds_and_its_blocks_small(read: Any) -> None:
    found = read(files.BAILIAN, "trace.jsonl")
    assert columns(found) == ([0.0, 2.5], [40, 64], [13, 9]) and not found.notes
    assert found.table.prefixes.of(0)[1] == [16, 32, 40]


def test_adapters_of_requests_in_json(read: Any) -> None:
    def named(*names: Any, key: str = "lora", **options: Any) -> tuple[tuple[str, ...], list[int], tuple[str, ...]]:
        rows = [{"timestamp": 0, "input_length": 5, "output_length": 2, key: name} for name in names]
        found = read(files.lines(*rows), "trace.jsonl", **options)
        return found.adapters, found.table.adapter.tolist(), found.notes

    assert named("b", "a", None, "b", "none") == (("b", "a"), [0, 1, BASE, 0, BASE], ())
    assert named(10, 2, -1, 2, key="lora_id") == (("2", "10"), [1, 0, BASE, 0], ())
    assert named("llama", "llama", key="model") == ((), [BASE, BASE], ())  # one model for all is the base
    names, index, notes = named("llama", "sql", "llama", key="model")
    assert names == ("llama", "sql") and index == [0, 1, 0] and "2 names of model" in notes[0]
    assert named("llama", "sql", key="model", base="llama") == (("sql",), [BASE, 0], ())
    assert named("llama", "llama", key="model", adapter="model") == (("llama",), [0, 0], ())
    assert named("x", "y", key="tenant", adapter="tenant") == (("x", "y"), [0, 1], ())


def test_adapters_of_a_table_and_of_sessions(read: Any) -> None:
    text = "arrival_s,input_tokens,output_tokens,Adapter\n0,5,1,3\n1,5,1,\n2,5,1,1\n"
    found = read(text)
    assert found.adapters == ("1", "3") and found.table.adapter.tolist() == [1, BASE, 0]
    session = {"arrival_time_ns": 0, "lora": "a", "sub_requests": [
        {"input_toks": 5, "output_toks": 2}, {"input_toks": 9, "output_toks": 2, "lora": "b"}]}  # fmt: skip
    found = read(files.lines(session), "trace.jsonl")
    assert found.adapters == ("a", "b") and found.table.adapter.tolist() == [0, 1]


def test_parquet_is_read_as_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "served.parquet"
    frame = pd.DataFrame({"arrival_s": [1.0, 2.5], "input_tokens": [5, 6], "output_tokens": [7, 8], "adapter": [1, -1]})
    frame.to_parquet(path)
    found = read_trace(path)
    assert columns(found) == ([0.0, 1.5], [5, 6], [7, 8])
    assert found.adapters == ("1",) and found.table.adapter.tolist() == [0, BASE]


def test_later_turns_follow_by_their_delay(read: Any) -> None:
    found = read(files.MOONCAKE_SESSIONS, "trace.jsonl")
    assert found.table.after.tolist() == [NOBODY, 0, NOBODY]
    assert found.table.think_s.tolist() == [0.0, 0.5, 0.0]
    np.testing.assert_allclose(found.table.arrival_s, [0.0, np.nan, 0.1])


def test_token_ids_are_shared_as_far_as_they_agree(read: Any) -> None:
    found = read(files.LLMSERVINGSIM, "trace.jsonl")
    assert columns(found) == ([0.0, 0.301012, 0.532687], [10, 22, 12], [70, 104, 4])
    (own, ends), (other, others), (next_turn, nexts) = (found.table.prefixes.of(row) for row in range(3))
    assert own[0] == other[0] == next_turn[0] and ends[0] == others[0] == 7  # the first seven ids are alike
    assert own[1] != other[1] and ends == [7, 10] and others == [7, 22]
    assert next_turn[1] == own[1] and nexts == [7, 12]  # goes on with the first answer


def test_sessions_wait_for_their_tools(read: Any) -> None:
    found = read(files.SESSIONS, "trace.jsonl")
    table = found.table
    assert table.input_tokens.tolist() == [1472, 1682, 700, 500]
    assert table.after.tolist() == [NOBODY, 0, 1, NOBODY]
    np.testing.assert_allclose(table.think_s, [0.0, 0.127348767, 5e-9, 0.0])
    np.testing.assert_allclose(table.arrival_s, [0.0, np.nan, np.nan, 9.0 - 0.00405974])
    first, second, third, other = (table.prefixes.of(row)[0] for row in range(4))
    assert first == second and third != first and other not in (first, third)  # 700 tokens cannot repeat 1,807
    assert any("repeat what was said before: 1" in note for note in found.notes)
    assert any("sorted" in note for note in found.notes)


def test_requests_of_a_measured_run_have_their_times_in_seconds(read: Any) -> None:
    assert columns(read(files.MEASURED_LINES, "r.jsonl")) == ([0.0, 0.265091], [2358, 1034], [531, 769])


def test_a_vllm_result_replays_what_was_sent_and_answered(read: Any) -> None:
    found = read(json.dumps(files.VLLM), "bench.json")
    assert columns(found) == ([0.0, 0.25, 0.75], [120, 80, 160], [3, 1, 4])
    assert found.concurrency is None
    limited = read(json.dumps(files.VLLM | {"max_concurrency": 2}, indent=2), "bench.json")
    assert limited.concurrency == 2 and any("closed loop" in note for note in limited.notes)


def test_sglang_s_times_are_drawn_at_its_rate(read: Any) -> None:
    found = read(files.lines(files.SGLANG), "sglang.jsonl")
    assert columns(found)[1:] == ([120, 80, 160], [3, 1, 4])
    assert found.table.arrival_s[0] == 0.0 and (np.diff(found.table.arrival_s) > 0).all()
    assert "Poisson process of 2/s" in found.notes[0]
    again, other = (read(files.lines(files.SGLANG), "sglang.jsonl", seed=seed).table.arrival_s for seed in (0, 1))
    assert (again == found.table.arrival_s).all() and not (other == again).all()
    at_once = read(files.lines(files.SGLANG | {"request_rate": float("inf"), "max_concurrency": 8}), "sglang.jsonl")
    assert (at_once.table.arrival_s == 0).all() and at_once.concurrency == 8


def test_of_several_runs_one_is_taken(read: Any) -> None:
    text = files.lines(files.SGLANG, files.SGLANG | {"input_lens": [1, 2, 3]})
    last, first = read(text, "runs.jsonl"), read(text, "runs.jsonl", run=1)
    assert last.table.input_tokens.tolist() == [1, 2, 3] and "2 runs" in last.notes[0]
    assert first.table.input_tokens.tolist() == [120, 80, 160]


def test_aiperf_s_records_are_requests_in_the_order_of_sending(read: Any) -> None:
    found = read(files.AIPERF, "profile_export.jsonl")
    assert columns(found) == ([0.0, 0.25, 0.75], [120, 80, 160], [3, 1, 4])
    assert "requests that failed or were cancelled are left out: 1" in found.notes


def test_aiperf_s_conversations_follow_their_answers(read: Any) -> None:
    turns = [
        files.aiperf_record(0.0, 100.0, [50.0] * 9, 100, "chat"),
        files.aiperf_record(800.0, 90.0, [1.0], 130, "chat", 1),
    ]
    warm_up = files.aiperf_record(-900.0, 90.0, [1.0], 130, "warm")
    warm_up["metadata"]["benchmark_phase"] = "warmup"
    found = read(files.lines(warm_up, *turns), "profile_export.jsonl")
    assert found.table.after.tolist() == [NOBODY, 0]
    assert found.table.think_s[1] == pytest.approx(0.25)  # answered at 550 ms, asked again at 800
    assert found.table.prefixes.of(0)[0] == found.table.prefixes.of(1)[0]
    assert "requests of warm-up are left out: 1" in found.notes


def test_servegen_s_clients_send_what_their_windows_say(tmp_path: Path) -> None:
    found = read_trace(files.servegen(tmp_path / "m-small"))
    table = found.table
    assert len(table) == 300 + 150 + 120 and (np.diff(table.arrival_s) >= 0).all()
    assert set(table.input_tokens) == {100, 300, 50} and set(table.output_tokens) == {7, 9}
    assert (table.input_tokens == 300).sum() == pytest.approx(0.75 * 450, rel=0.1)
    assert found.adapters == () and "2 clients" in found.notes[-1]
    named = read_trace(tmp_path / "m-small", adapter="client")
    assert named.adapters == ("0", "12") and (named.table.adapter == 1).sum() == 120


def test_servegen_s_parts_are_those_of_the_whole(tmp_path: Path) -> None:
    folder = files.servegen(tmp_path / "m-small")
    whole, part = read_trace(folder), read_trace(folder, start_s=500.0, seconds=400.0)
    times = whole.table.arrival_s
    inside = (times >= 500.0 - 0.0) & (times < 900.0)
    assert len(part.table) == pytest.approx(inside.sum(), abs=2)
    gaps = np.diff(part.table.arrival_s)
    assert gaps.std() / gaps.mean() > 1.0  # a client in bursts is among them


@pytest.mark.parametrize("name", sorted(files.TEXTS))
def test_a_byte_order_mark_and_blank_lines_change_nothing(read: Any, name: str) -> None:
    plain = read(files.TEXTS[name], name)
    marked = read("\ufeff" + files.TEXTS[name] + "\n\n", name)
    np.testing.assert_array_equal(plain.table.arrival_s, marked.table.arrival_s)
    assert plain.table.input_tokens.tolist() == marked.table.input_tokens.tolist()


SLICES = {
    "azure2023_conv_first4000.csv": (4000, 374, 44), "azure2023_code_first4000.csv": (4000, 4808, 10),
    "llmservingsim_RTX4090_Llama-3.1-8B.csv": (300, 2358, 531),
    "mooncake_conversation_first1200.jsonl": (1200, 6758, 500),
}  # fmt: skip


@pytest.mark.skipif(not TRACES.is_dir(), reason="the slices of public traces are not here")
@pytest.mark.parametrize("name", SLICES)
def test_slices_of_public_traces(name: str) -> None:
    found = read_trace(TRACES / name)
    count, prompt, answer = SLICES[name]
    assert (len(found.table), found.table.input_tokens[0], found.table.output_tokens[0]) == (count, prompt, answer)
    assert not found.notes and found.name == Path(name).stem


@pytest.mark.skipif(not TRACES.is_dir(), reason="the slices of public traces are not here")
def test_mooncake_s_slice_shares_as_much_as_its_hashes_say() -> None:
    prefixes = read_trace(TRACES / "mooncake_conversation_first1200.jsonl").table.prefixes
    assert prefixes is not None
    rows = [json.loads(line) for line in (TRACES / "mooncake_conversation_first1200.jsonl").open()]
    assert len(prefixes.segment) == sum(len(row["hash_ids"]) for row in rows)
    assert len(np.unique(prefixes.segment)) == len({part for row in rows for part in row["hash_ids"]})
    assert prefixes.end[prefixes.start[1:] - 1].tolist() == [row["input_length"] for row in rows]
