"""The timeline of a training step: a track per stream, forward, backward and update in their order."""

from __future__ import annotations

import json

import pytest

import graphsim as gs
from graphsim.export.training_figures import figures_of
from tests.training.steps import lora_step


@pytest.fixture(scope="module")
def trace() -> dict:
    return gs.to_trace(lora_step())


def test_streams_have_tracks_and_the_step_is_as_long_as_its_graph(trace):
    tracks = {e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert {"host", "compute", "step"} <= tracks
    [whole] = [e for e in trace["traceEvents"] if e["name"] == "training step"]
    assert whole["dur"] == pytest.approx(1e6 * float(lora_step().graph.graph["latency_s"]), abs=0.01)


def test_a_layer_is_entered_backward_behind_its_forward(trace):
    at = {e["args"]["node"]: e["ts"] for e in trace["traceEvents"] if e.get("args", {}).get("node")}
    q_proj, dgrad = (next(at[name] for name in at if name.endswith(end)) for end in (".q_proj", ".q_proj.dgrad"))
    update = next(ts for name, ts in at.items() if name.startswith("update") and not name.endswith(".launch"))
    assert q_proj < dgrad < update


def test_the_document_says_what_it_is_and_is_written_whole(trace, tmp_path):
    path = tmp_path / "trace.json"
    gs.to_trace(lora_step(), path)
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(trace))
    assert trace["otherData"]["step_s"] == pytest.approx(float(lora_step().step_s))
    with pytest.raises(gs.ConfigError, match="start_s applies to served runs"):
        gs.to_trace(lora_step(), start_s=1.0)


def test_a_pipeline_shows_the_slots_of_all_micro_batches_on_all_stages():
    degrees = gs.Parallelism(pp=2)
    step = gs.train("llama-3.2-1b", "h100-sxm", seq_len=64, method="full", accumulate=4, parallelism=degrees)
    nodes = {e["args"]["node"] for e in gs.to_trace(step)["traceEvents"] if e.get("args", {}).get("node")}
    assert {f"mb{m}.stage{s}.forward" for m in range(4) for s in range(2)} <= nodes
    chart = figures_of(step, None, 0)["chart-pipeline"]
    forward, backward = chart["data"]
    assert len(forward["x"]) == len(backward["x"]) == 8
    ends = [base + x for base, x in zip(backward["base"], backward["x"], strict=True)]
    assert max(ends) == pytest.approx(1e3 * float(step.slots.makespan_s))
