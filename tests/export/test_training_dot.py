"""The picture of a layer tells frozen, trained and kept apart, and no name breaks it."""

from __future__ import annotations

import json
import shutil
import subprocess

import networkx as nx
import pytest

import graphsim as gs
from graphsim.display.training import is_frozen, is_trained
from graphsim.export.training_dot import GRADIENT, KEPT, TRAINED, training_dot
from graphsim.export.training_layer import layer_graph, pairs_of, plain
from graphsim.graph import walk
from graphsim.ops import KeptValue, Launch, WeightGradient
from graphsim.units import bytes_text
from tests.training.steps import lora_step, wicked_step

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="GraphViz is not installed")


def parsed(text: str) -> dict:
    done = subprocess.run(["dot", "-Tdot_json"], input=text.encode(), capture_output=True, check=True)
    assert done.stderr.decode() == ""
    return json.loads(done.stdout.decode("utf-8", errors="replace"))


@pytest.fixture(scope="module")
def read() -> dict:
    return parsed(training_dot(lora_step()))


def nodes(read: dict) -> dict[str, dict]:
    return {o["name"]: o for o in read["objects"] if not o["name"].startswith("cluster_")}


@needs_dot
def test_trained_frozen_gradients_and_kept_look_differently(read):
    graph, drawn = lora_step().graph, nodes(read)
    [pair] = [pair for pair in pairs_of(graph) if pair.forward == pairs_of(graph)[0].forward]
    for name, op in graph.nodes[pair.forward]["op"].body.nodes(data="op"):
        node = drawn.get(f"{pair.forward}.{name}", {})
        if is_trained(op):
            assert (node["color"], node["peripheries"]) == (TRAINED, "2")
        elif is_frozen(op):
            assert "dashed" in node["style"]
        elif node:
            assert "dashed" not in node.get("style", "") and "peripheries" not in node
    for name, op in graph.nodes[pair.backward]["op"].body.nodes(data="op"):
        node = drawn.get(f"{pair.backward}.{name}")
        if isinstance(op, WeightGradient):
            assert node["color"] == GRADIENT
        elif isinstance(op, KeptValue):
            assert (node["color"], node["shape"]) == (KEPT, "note")
            assert bytes_text(float(op.kept_bytes)) in node["label"]


@needs_dot
def test_what_is_kept_is_joined_to_what_made_it_and_to_what_uses_it(read):
    names = [o["name"] for o in read["objects"]]
    edges = {(names[e["tail"]], names[e["head"]]) for e in read["edges"]}
    kept = "layers_1_15.backward.q_proj.lora_a.kept"
    assert ("layers_1_15.q_proj.lora_a", kept) in edges
    assert (kept, "layers_1_15.backward.q_proj.lora_b.wgrad") in edges


@needs_dot
def test_forward_backward_and_what_is_kept_are_boxes_and_the_legend_says_what_is_what(read):
    labels = [o["label"] for o in read["objects"] if o["name"].startswith("cluster_")]
    assert len(labels) == 3 and any("backward" in label for label in labels)
    for said in ("trained weights", "frozen weights", "gradient of weights (wgrad)", "kept until the backward pass"):
        assert said in read["label"]


def test_launches_are_left_out_and_no_time_is_lost():
    body = lora_step().graph.nodes["layers_1_15"]["op"].body
    shown = plain(body)
    assert not any(isinstance(op, Launch) for _, op, _ in walk(shown))
    device_s = sum(float(d["latency_s"]) for _, d in body.nodes(data=True) if not isinstance(d["op"], Launch))
    assert sum(float(d["latency_s"]) for _, d in shown.nodes(data=True)) == pytest.approx(device_s)
    assert gs.to_dot(layer_graph(lora_step().graph, pairs_of(lora_step().graph)[0]))


def test_full_training_has_no_frozen_weights():
    text = training_dot(gs.train("llama-3.2-1b", "h100-sxm", seq_len=64, method="full"))
    assert "frozen" not in text and "q_proj.wgrad" in text


@needs_dot
def test_a_wicked_name_is_a_text():
    assert "&lt;img" in training_dot(wicked_step())
    assert parsed(training_dot(wicked_step(), title="]]> \\N <b>"))


def test_mistakes_are_told(tmp_path):
    with pytest.raises(gs.ConfigError, match="training_dot takes one TrainEstimate or graph"):
        training_dot("llama")
    with pytest.raises(gs.GraphError, match="holds no repeated layer"):
        training_dot(nx.DiGraph())
    with pytest.raises(gs.ConfigError, match="cannot be written to"):
        training_dot(lora_step(), tmp_path / "no" / "file.dot")
    training_dot(lora_step(), tmp_path / "file.dot")
    assert (tmp_path / "file.dot").read_text(encoding="utf-8") == training_dot(lora_step())
