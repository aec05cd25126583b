"""The timeline obeys the trace format's published rules and shows the schedule's times."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

import graphsim as gs
from graphsim.display.nodes import entries, number
from graphsim.export.spread import runs_of
from graphsim.export.trace import to_trace
from graphsim.graph import unroll
from graphsim.graph.schedule import makespan_s

NANOSECOND_US = 1e-3
REQUIRED = {"X": {"name", "ph", "ts", "dur", "pid", "tid"}, "M": {"name", "ph", "pid", "args"}}
FLOW = {"name", "cat", "ph", "ts", "pid", "tid", "id"}


def slices(document: dict, **wanted) -> list[dict]:
    return [e for e in document["traceEvents"] if e["ph"] == "X" and all(e.get(k) == v for k, v in wanted.items())]


def check_rules(document: dict) -> None:
    """The rules of the Trace Event Format for the events that we use."""
    names = defaultdict(set)
    for event in document["traceEvents"]:
        assert event["ph"] in "XMsf"
        assert REQUIRED.get(event["ph"], FLOW) <= set(event)
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] != "M":
            assert np.isfinite(event["ts"]) and event["ts"] >= 0 and event.get("dur", 0) >= 0
        else:
            names[event["name"]].add((event["pid"], event["tid"]))
    times = [event["ts"] for event in document["traceEvents"] if event["ph"] != "M"]
    assert times == sorted(times)
    tracks = by_track(document)
    assert set(tracks) == names["thread_name"]
    assert {pid for pid, _ in tracks} == {pid for pid, _ in names["process_name"]}
    for events in tracks.values():
        check_nesting(events)
    check_flows(document, tracks)


def by_track(document: dict) -> dict[tuple[int, int], list[dict]]:
    """Slices by process and track, in time."""
    tracks = defaultdict(list)
    for event in slices(document):
        tracks[event["pid"], event["tid"]].append(event)
    return tracks


def check_nesting(events: list[dict]) -> None:
    """Slices of a track lie side by side or inside one another."""
    open_until: list[float] = []
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        while open_until and open_until[-1] <= event["ts"] + NANOSECOND_US / 2:
            open_until.pop()
        end = event["ts"] + event["dur"]
        assert not open_until or end <= open_until[-1] + NANOSECOND_US / 2, event["name"]
        open_until.append(end)


def check_flows(document: dict, tracks: dict) -> None:
    """Every arrow has one start and one end that is not earlier, each inside a slice."""
    begins = {track: [event["ts"] for event in events] for track, events in tracks.items()}
    flows = defaultdict(dict)
    for event in document["traceEvents"]:
        if event["ph"] in "sf":
            assert event["ph"] not in flows[event["id"]]
            flows[event["id"]][event["ph"]] = event
            inside(event, tracks, begins)
    assert flows
    for flow in flows.values():
        assert set(flow) == {"s", "f"} and flow["s"]["ts"] <= flow["f"]["ts"]
        assert (flow["s"]["cat"], flow["s"]["name"]) == (flow["f"]["cat"], flow["f"]["name"])
        assert flow["f"]["bp"] == "e"


def inside(event: dict, tracks: dict, begins: dict) -> dict:
    """The slice of its track that an event lies in."""
    track = event["pid"], event["tid"]
    found = tracks[track][bisect_right(begins[track], event["ts"] + NANOSECOND_US / 10) - 1]
    assert found["ts"] <= event["ts"] + NANOSECOND_US / 10 < found["ts"] + found["dur"] + NANOSECOND_US / 5
    return found


@pytest.mark.parametrize("label", ["base", "dynamic", "merge", "tp2", "pipeline", "experts", "exchange"])
@pytest.mark.parametrize("expand", [False, True])
def test_the_file_obeys_the_format(estimates, tmp_path, label, expand):
    to_trace(estimates[label], tmp_path / "t.json", expand=expand)

    def reject(text):
        raise ValueError(text)

    check_rules(json.loads((tmp_path / "t.json").read_text(encoding="utf-8"), parse_constant=reject))


def test_arrows_lead_from_results_to_what_reads_them(estimates):
    phase = estimates["tp2"].decode
    document = to_trace(phase, expand=True)
    tracks = by_track(document)
    begins = {track: [event["ts"] for event in events] for track, events in tracks.items()}
    ends = defaultdict(dict)
    for event in document["traceEvents"]:
        if event["ph"] in "sf":
            ends[event["id"]][event["ph"]] = inside(event, tracks, begins)["args"]["node"]
    turns = {turn.name: turn for turn in runs_of(phase.graph)}

    def readers(name):
        return {source for p in turns[name].inputs for source in ([p] if turns[p].latency_s > 0 else readers(p))}

    expected = {(source, name) for name, turn in turns.items() if turn.latency_s > 0 for source in readers(name)}
    assert {(found["s"], found["f"]) for found in ends.values()} == expected


def test_steps_last_as_long_as_the_estimate_says(estimates):
    for label in ("base", "tp2", "pipeline"):
        estimate = estimates[label]
        steps = slices(to_trace(estimate), cat="step")
        found = {step["name"]: step["dur"] * 1e-6 for step in steps}
        assert found["prefill step"] == pytest.approx(float(estimate.ttft_s), abs=1e-9)
        assert found["decode step"] == pytest.approx(float(estimate.decode.latency_s), abs=1e-9)


def test_expanding_shows_every_run_and_collapsing_keeps_the_busy_time(estimates):
    estimate = estimates["dynamic"].prefill
    frame = estimate.to_frame()
    busy = frame[frame.latency_s > 0]
    expanded = [e for e in slices(to_trace(estimate, expand=True)) if e.get("cat") != "step"]
    assert len(expanded) == busy.times.sum()
    folded = to_trace(estimate)
    shown = [e for e in slices(folded) if e.get("cat") not in ("step", "repeat")]
    assert len(shown) == len(busy)
    hidden = slices(folded, cat="repeat")
    assert sum(e["args"]["runs"] for e in hidden) == len(expanded) - len(shown)
    total = sum(e["dur"] for e in shown) + sum(e["args"]["busy_us"] for e in hidden)
    assert total == pytest.approx(sum(e["dur"] for e in expanded), abs=1e-3 * len(expanded))


def test_adapters_are_named_coloured_and_categorised(estimates):
    found = slices(to_trace(estimates["dynamic"].decode), cat="LoRA")
    names = {f"{p}_proj.lora_{part}" for p in "qv" for part in ("a", "b", "add")}
    assert {e["name"] for e in found} == names and {e["cname"] for e in found} == {"bad"}
    args = next(e for e in found if e["name"] == "q_proj.lora_a")["args"]
    assert (args["m"], args["n"], args["k"]) == (2, 16, 4096) and args["bound"] in ("memory", "launch")
    assert args["flops"] == 2 * 2 * 16 * 4096 and isinstance(args["m"], int)
    assert {"read_bytes", "write_bytes", "message_bytes", "critical", "slack_us"} <= set(args)


def test_one_time_work_has_a_process_of_its_own(estimates):
    found = slices(to_trace(estimates["merge"]), cat="LoRA merge, once")
    assert {e["name"] for e in found} == {"q_proj.lora_merge × 32", "v_proj.lora_merge × 32"}
    assert sum(e["dur"] for e in found) * 1e-6 == pytest.approx(float(estimates["merge"].one_time_s), abs=2e-9)


def test_streams_are_tracks_and_stages_are_processes(estimates):
    def named(document, what):
        return [e["args"]["name"] for e in document["traceEvents"] if e["ph"] == "M" and e["name"] == what]

    assert named(to_trace(estimates["tp2"]), "thread_name") == ["step", "compute", "network"]
    assert named(to_trace(estimates["pipeline"]), "process_name") == ["stage0", "stage1"]


def test_spelled_out_runs_take_as_long_as_the_collapsed_graph(estimates):
    for label in ("dynamic", "tp2", "pipeline"):
        graph = estimates[label].prefill.graph
        turns = runs_of(graph)
        assert max(t.finish_s for t in turns) == pytest.approx(float(makespan_s(graph)), rel=1e-9)
        assert len(turns) == sum(entry.times for entry in entries(graph) if not entry.op.once)


def test_runs_have_the_names_and_inputs_that_unroll_gives_and_the_prices_of_their_nodes(graphs):
    turns, plain = runs_of(graphs["annotated"]), unroll(graphs["plain"])
    assert [turn.name for turn in turns] == list(plain)
    assert {(source, turn.name) for turn in turns for source in turn.inputs} == set(plain.edges)
    assert all(turn.data["latency_s"] == pytest.approx(turn.latency_s) for turn in turns)


def test_runs_of_a_stream_follow_one_another(estimates):
    by_stream = defaultdict(list)
    for turn in runs_of(estimates["tp2"].prefill.graph):
        by_stream[turn.op.stream].append(turn)
    for turns in by_stream.values():
        assert all(b.start_s >= a.finish_s - 1e-12 for a, b in pairwise(turns))


def test_scenarios_are_shown_one_at_a_time():
    estimate = gs.simulate("gpt-2", "l4", batch=[1, 8], input_tokens=[64, 128], output_tokens=4, engine="reference")
    for scenario in (0, 1):
        document = to_trace(estimate, scenario=scenario)
        assert document["otherData"]["ttft_s"] == number(estimate.ttft_s, scenario)
        step = slices(document, name="prefill step")[0]
        assert step["dur"] * 1e-6 == pytest.approx(number(estimate.ttft_s, scenario), abs=1e-9)
    with pytest.raises(gs.ConfigError, match="scenario = 2"):
        to_trace(estimate, scenario=2)


def test_a_path_that_cannot_be_written_is_explained(estimates, tmp_path):
    with pytest.raises(gs.ConfigError, match="cannot be written"):
        to_trace(estimates["base"], tmp_path / "missing" / "t.json")
