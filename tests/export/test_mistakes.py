"""What an exporter cannot take is refused in one sentence; what is empty is exported as such."""

from __future__ import annotations

import networkx as nx
import pytest

import graphsim as gs
from graphsim.display.operators import frame_of
from graphsim.result import PhaseEstimate

GRAPH_EXPORTS = {"to_dot": gs.to_dot, "to_json": gs.to_json, "frame_of": frame_of}
ESTIMATE_EXPORTS = {"to_trace": gs.to_trace, "to_html": gs.to_html, "to_chakra": lambda e: gs.to_chakra(e, "x")}


@pytest.mark.parametrize("name", GRAPH_EXPORTS)
@pytest.mark.parametrize("wrong", [None, "llama-3.1-8b", nx.Graph()])
def test_exports_of_graphs_say_that_they_take_a_graph(name, wrong):
    with pytest.raises(gs.ConfigError, match=rf"{name} takes one graph \(such as estimate.prefill.graph\), found"):
        GRAPH_EXPORTS[name](wrong)


@pytest.mark.parametrize("name", ESTIMATE_EXPORTS)
def test_exports_of_estimates_say_that_they_take_an_estimate(name, graphs):
    with pytest.raises(gs.ConfigError, match=f"{name} takes one Estimate.*, found DiGraph"):
        ESTIMATE_EXPORTS[name](graphs["base"])


def test_a_node_without_an_operation_is_named():
    graph = nx.DiGraph()
    graph.add_node("bare")
    for export in (gs.to_dot, frame_of):
        with pytest.raises(gs.GraphError, match="node 'bare' carries no op"):
            export(graph)


def test_an_unpriced_graph_has_no_timeline_and_says_so(graphs):
    with pytest.raises(gs.GraphError, match="has no latency_s; annotate the graph first"):
        gs.to_trace(PhaseEstimate(name="prefill", build=lambda: graphs["plain"]))


def test_an_empty_graph_is_an_empty_picture():
    assert gs.to_dot(nx.DiGraph()).startswith("digraph")


@pytest.mark.parametrize("wrong", [None, [1], 3])
def test_what_is_no_graph_and_no_document_is_said_to_be_none(wrong):
    with pytest.raises(gs.GraphError, match="is not a networkx.DiGraph"):
        gs.total_work(wrong)
    with pytest.raises(gs.GraphError, match="expected JSON text, a path or a mapping"):
        gs.from_json(wrong)


def test_a_scenario_that_is_not_there_has_no_critical_path():
    graph = gs.simulate("gpt-2", "l4", batch=[1, 2], engine="reference").prefill.graph
    assert gs.critical_path(graph, 1)
    for scenario in (2, -1):
        with pytest.raises(gs.ConfigError, match=f"scenario = {scenario} is not allowed; .* 0 to 1"):
            gs.critical_path(graph, scenario)


def test_a_message_about_a_table_of_numbers_is_one_line():
    with pytest.raises(gs.ConfigError) as found:
        gs.simulate("gpt-2", "l4", batch=[[1, 2], [3, 4]], engine="reference")
    assert "\n" not in str(found.value) and "batch = " in str(found.value)
