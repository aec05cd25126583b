"""The timeline of a served run obeys the trace format's published rules and shows the log's times."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest

import graphsim as gs
from graphsim.export.serving_trace import ENGINE, REQUESTS, STEPS, serving_trace
from tests.serving.hand_made import LOADS, RUNS, SENT, hand_made

from .conftest import HOSTILE
from .test_trace import REQUIRED, by_track, check_nesting, slices

MORE = {"C": {"name", "ph", "ts", "pid", "args"}, "i": {"name", "ph", "ts", "pid", "tid", "s"}}


def check_rules(document: dict) -> None:
    """The rules of the Trace Event Format for the events that we use."""
    named = defaultdict(set)
    for event in document["traceEvents"]:
        assert (REQUIRED | MORE)[event["ph"]] <= set(event)
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] == "M":
            named[event["name"]].add((event["pid"], event["tid"]))
        else:
            assert np.isfinite(event["ts"]) and event["ts"] >= 0 and event.get("dur", 0) >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) and value >= 0 for value in event["args"].values())
    times = [event["ts"] for event in document["traceEvents"] if event["ph"] != "M"]
    assert times == sorted(times)
    tracks = by_track(document)
    assert set(tracks) <= named["thread_name"]
    assert {pid for pid, _ in tracks} <= {pid for pid, _ in named["process_name"]}
    for events in tracks.values():
        check_nesting(events)


def counter(document: dict, name: str) -> list[tuple[float, float]]:
    found = [e for e in document["traceEvents"] if e["ph"] == "C" and e["name"] == name]
    return [(event["ts"] / 1e6, *event["args"].values()) for event in found]


def test_the_file_obeys_the_format(tmp_path):
    serving_trace(hand_made(), tmp_path / "t.json")

    def reject(text):
        raise ValueError(text)

    check_rules(json.loads((tmp_path / "t.json").read_text(encoding="utf-8"), parse_constant=reject))


def test_steps_loads_and_preemptions_are_those_of_the_log():
    document = serving_trace(hand_made())
    steps = slices(document, pid=ENGINE, tid=STEPS)
    assert [(e["ts"] / 1e6, e["dur"] / 1e6) for e in steps] == [row[:2] for row in RUNS]
    assert steps[1]["name"] == "decode × 2: batch 1" and steps[6]["name"] == "prefill: 32 prompt tokens"
    assert steps[7]["args"]["step_ms"] == pytest.approx(250.0) and steps[7]["args"]["kv_blocks"] == 10
    loads = slices(document, cat="load")
    assert [e["name"] for e in loads] == ["load red from disk", "load blue from disk", "load green", "load red"]
    assert sum(e["dur"] for e in loads) / 1e6 == pytest.approx(sum(row[1] for row in LOADS))
    preempted = [e for e in document["traceEvents"] if e["ph"] == "i"]
    assert [(e["name"], e["ts"]) for e in preempted] == [("request 11 preempted", 7.5e6)]


def test_counters_follow_the_queue_and_fall_to_zero_when_idle():
    document = serving_trace(hand_made())
    assert counter(document, "queue")[:6] == [(0.0, 1), (0.5, 0), (1.0, 0), (2.0, 2), (2.5, 0), (3.5, 1)]
    assert (7.0, 100) in counter(document, "KV cache") and (8.75, 0) in counter(document, "KV cache")
    assert max(value for _, value in counter(document, "batch")) == 4


def test_requests_are_slices_with_their_parts_in_as_many_lanes_as_were_in_flight():
    document = serving_trace(hand_made())
    found = {e["name"]: e for e in slices(document, cat="request")}
    assert len(found) == sum(sent == sent for sent in SENT)
    assert found["request 11"]["dur"] / 1e6 == pytest.approx(2.75) and found["request 3"]["args"]["adapter"] == "green"
    assert found["request 0"]["args"]["adapter"] == "red" and found["request 2"]["args"]["adapter"] is None
    assert {e["tid"] for e in slices(document, pid=REQUESTS)} == {1, 2, 3, 4}
    queue = slices(document, cat="queue")
    assert sorted(e["dur"] / 1e6 for e in queue) == pytest.approx([0.1, 2.0])
    assert not slices(serving_trace(hand_made(), requests=False), pid=REQUESTS)


def test_a_span_shows_what_touches_it():
    document = serving_trace(hand_made(), start_s=7.2, end_s=7.6)
    check_rules(document)
    assert [e["ts"] for e in slices(document, tid=STEPS, pid=ENGINE)] == [7.0e6, 7.5e6]
    assert len(slices(document, cat="request")) == 4 and not slices(document, cat="load")
    with pytest.raises(gs.ConfigError, match="end_s = 1 is not allowed"):
        serving_trace(hand_made(), start_s=2, end_s=1)
    with pytest.raises(gs.ConfigError, match="start_s = -1"):
        serving_trace(hand_made(), start_s=-1)


def test_hostile_names_stay_data(tmp_path):
    service = hand_made(adapter_names=HOSTILE[:3], model=HOSTILE[-2], hardware=HOSTILE[-1])
    serving_trace(service, tmp_path / "t.json")
    check_rules(json.loads((tmp_path / "t.json").read_text(encoding="utf-8")))


def test_loads_that_overlap_have_tracks_of_their_own():
    service = hand_made()
    service.log.loads[:] = [(0.0, 1.0, 0, 1), (0.5, 1.0, 1, 0), (1.2, 0.1, 2, 0)]
    document = serving_trace(service)
    check_rules(document)
    assert [e["tid"] - STEPS for e in slices(document, cat="load")] == [1, 2, 1]
