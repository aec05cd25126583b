"""The picture shows the graph: every node, the shapes, the groups, the adapters and the critical path."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

import graphsim as gs
from graphsim.display.nodes import number, shape_of, shape_text, shapes
from graphsim.display.palette import CRITICAL, TINTS, Kind
from graphsim.export.dot import render, to_dot
from graphsim.export.dot_labels import LONGEST_NAME, clean
from graphsim.export.flat import flatten
from graphsim.graph import edge_elems, walk

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="GraphViz is not installed")


def parsed(text: str) -> dict:
    """What GraphViz itself reads in the text; it must not complain."""
    done = subprocess.run(["dot", "-Tdot_json"], input=text.encode(), capture_output=True, check=True)
    assert done.stderr.decode() == ""
    return json.loads(done.stdout.decode("utf-8", errors="replace"))


def boxes(text: str) -> list[dict]:
    return [o for o in parsed(text)["objects"] if o["name"].startswith("cluster_")]


@needs_dot
def test_every_make_of_graph_is_read_by_graphviz_with_all_its_nodes(graphs):
    for label, graph in graphs.items():
        objects = {o["name"] for o in parsed(to_dot(graph))["objects"] if not o["name"].startswith("cluster_")}
        idle = {n for n, op, _ in walk(graph) if hasattr(op, "group") and number(op.group) == 1}
        assert objects == {n for n, _, _ in walk(graph)} - idle, label


@needs_dot
@pytest.mark.parametrize("label", ["base", "dynamic", "tp2", "merge", "windows", "experts", "scan"])
def test_pictures_render(graphs, tmp_path, label):
    path = render(to_dot(graphs[label], title=label), tmp_path / "graph.svg")
    texts = "\n".join(e.text or "" for e in ET.parse(path).iter("{http://www.w3.org/2000/svg}text"))
    assert label in texts and ("qkv_proj" in texts or label == "scan")
    assert "critical path" in texts if label != "windows" else "critical" not in texts
    assert render(to_dot(graphs["dynamic"]), tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


@needs_dot
def test_hostile_names_arrive_in_the_picture_as_they_are(hostile, tmp_path):
    text = to_dot(hostile, tmp_path / "hostile.dot", title='a <b> & "c" \\N \x00')
    names = [o["name"] for o in parsed(text)["objects"]]
    assert len(names) == len(set(names)) == len(hostile)
    render(text, tmp_path / "hostile.svg")
    svg = ET.parse(tmp_path / "hostile.svg")
    shown = {e.text.replace("\u00a0", " ") for e in svg.iter("{http://www.w3.org/2000/svg}text") if e.text}
    for name in hostile:
        expected = clean(name).replace("\n", "↵").replace("\r", "↵").replace("\t", " ")
        assert (expected if expected.strip() else "(no name)") in shown, name
    assert (tmp_path / "hostile.dot").read_bytes().decode() == text


@needs_dot
def test_a_long_name_is_cut_in_the_label_and_whole_in_the_tooltip():
    import networkx as nx

    from graphsim.graph import add
    from graphsim.ops import Input

    graph = nx.DiGraph()
    add(graph, "n" * 500, Input(elems=1.0))
    node = parsed(to_dot(graph))["objects"][0]
    assert "n" * LONGEST_NAME not in node["label"] and "n" * 500 in node["tooltip"]


def test_a_repeat_is_a_box_with_its_count_and_layers(graphs):
    text = to_dot(graphs["dynamic"])
    assert "<B>32 × </B>" in text and "layers 0 to 31" in text
    assert text.count("subgraph cluster_") == 1


def test_alternating_layers_are_boxes_inside_the_repeat(graphs):
    text = to_dot(graphs["windows"])
    assert "<B>21 × </B>" in text and "layer 0, every 2" in text and "layer 1, every 2" in text


def test_an_unrolled_graph_has_one_box_per_block(graphs):
    groups = {group for around in flatten(graphs["unrolled"]).groups.values() for group in around}
    assert len(groups) == 12


def test_stages_and_micro_batches_are_boxes_around_their_repeats(graphs):
    groups = flatten(graphs["pipeline"]).groups
    labels = [g.label for g in groups["mb1.stage0.layers_0_15.qkv_proj"]]
    assert labels == ["stage 0, micro-batch 1", "layers 0 to 15"]


def test_the_shape_on_an_edge_holds_as_many_elements_as_flow_along_it(graphs):
    def check(graph, rows):
        for (source, target), shape in shapes(graph, incoming=rows).items():
            count = 1.0
            for size in shape:
                count *= size
            assert count == pytest.approx(number(edge_elems(graph, source, target))), (source, target)
            op = graph.nodes[target]["op"]
            if hasattr(op, "body"):
                check(op.body, shape[0])

    for graph in graphs.values():
        check(graph, 0.0)


def test_edges_state_the_shape_and_the_part_they_take(graphs):
    text = to_dot(graphs["plain"])
    assert re.search(r'"layers_0_31\.q_proj\.lora_a" -> "layers_0_31\.q_proj\.lora_b" \[label=<  256 × 16 >', text)
    part = r'"layers_0_31\.qkv_proj" -> "layers_0_31\.v_proj\.lora_add" \[label=< <I>v_proj</I> <BR/> 256 × 1024 >'
    assert re.search(part, text)
    assert re.search(r'"norm" -> "last_tokens" \[label=<  256 × 4096 >', text)
    assert re.search(r'"last_tokens" -> "lm_head" \[label=<  1 × 4096 >', text)
    rope = graphs["plain"].nodes["layers_0_31"]["op"].body.nodes["rope"]["op"]
    assert shape_text(shape_of(rope, ("k",))) == "256 × 8 × 128"


def test_sequence_parallel_values_are_cut_over_tokens():
    graph = gs.build_graph("llama-3.1-8b", input_tokens=256, parallelism=gs.Parallelism(tp=4, sp=4))
    flat = {(e.source.rpartition(".")[2], e.target.rpartition(".")[2]): e.shape for e in flatten(graph).edges}
    assert flat["reduce_scatter", "attn_residual"] == flat["attn_residual", "post_attention_layernorm"] == (64, 4096)
    assert flat["all_gather", "qkv_proj"] == flat["all_gather", "gate_up_proj"] == (256, 4096)
    assert flat["all_gather", "sample"] == (1, 128256)


def test_adapter_nodes_stand_out_and_one_time_ones_are_dashed(graphs):
    def line(text, name):
        return next(row for row in text.splitlines() if row.strip().startswith(f'"layers_0_31.{name}" ['))

    dynamic, merge = to_dot(graphs["dynamic"]), to_dot(graphs["merge"])
    for name in ("q_proj.lora_a", "q_proj.lora_b", "q_proj.lora_add"):
        assert TINTS[Kind.LORA].fill in line(dynamic, name)
    assert "dashed" in line(merge, "q_proj.lora_merge") and TINTS[Kind.MERGE].fill in line(merge, "q_proj.lora_merge")
    assert 'label="once"' in merge
    assert TINTS[Kind.LORA].fill not in to_dot(graphs["base"])


def test_the_critical_path_is_one_unbroken_red_line(graphs):
    for label in ("base", "dynamic", "tp2", "pipeline"):
        flat = flatten(graphs[label])
        red = [(e.source, e.target) for e in flat.edges if e.critical]
        assert sorted(red) == sorted(zip(flat.path, flat.path[1:], strict=False)), label
        rows = [row for row in to_dot(graphs[label]).splitlines() if " -> " in row and CRITICAL in row]
        assert len(rows) == len(flat.path) - 1
    assert CRITICAL not in to_dot(graphs["plain"])


def test_collectives_are_octagons_and_those_of_one_device_are_left_out(graphs):
    assert "octagon" in to_dot(graphs["tp2"]) and "ALL_REDUCE" in to_dot(graphs["tp2"])
    assert "octagon" not in to_dot(graphs["base"])
    base = flatten(graphs["base"])
    assert any((e.source, e.target) == ("layers_0_31.o_proj", "layers_0_31.attn_residual") for e in base.edges)


def test_an_annotated_graph_is_scheduled_for_the_picture(graphs):
    assert flatten(graphs["annotated"]).path
    assert "latency_s" not in graphs["annotated"].graph


def test_latency_and_bound_are_written_on_the_nodes(graphs):
    text = to_dot(graphs["base"])
    assert "● compute" in text and "µs" in text
    assert "●" not in to_dot(graphs["plain"])


def test_scenarios_are_drawn_one_at_a_time(graphs):
    assert "64 × 768" in to_dot(graphs["scenarios"]) and "768 × 768" in to_dot(graphs["scenarios"], scenario=2)
    with pytest.raises(gs.ConfigError, match="scenario = 7"):
        to_dot(graphs["scenarios"], scenario=7)


def test_what_cannot_be_drawn_says_why(graphs, tmp_path, monkeypatch):
    with pytest.raises(gs.ConfigError, match="cannot be written"):
        to_dot(graphs["plain"], tmp_path / "no" / "such" / "x.dot")
    if shutil.which("dot"):
        with pytest.raises(gs.ConfigError, match="could not draw"):
            render("digraph {", tmp_path / "x.svg")
        with pytest.raises(gs.ConfigError, match="could not draw"):
            render("digraph {}", tmp_path / "x.nosuchformat")
        with pytest.raises(gs.ConfigError, match="no suffix"):
            render("digraph {}", tmp_path / "x")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(gs.ConfigError, match="apt install graphviz"):
        render("digraph {}", tmp_path / "x.svg")
