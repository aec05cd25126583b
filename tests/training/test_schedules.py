"""Pipeline schedules: every slot once and in order, bubbles and memory as in the papers, times as by networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.deployment.parallelism import SCHEDULES
from graphsim.graph.critical import schedule
from graphsim.result import PhaseEstimate
from graphsim.training.pipelined import Pipelined, in_flight, pipelined_s
from graphsim.training.schedules import Schedule, schedule_of
from graphsim.training.slot_graph import name_of, slot_graph
from graphsim.training.slot_order import run_of
from graphsim.training.slots import BOTH, FORWARD, INPUT, WEIGHT

EACH = [(name, 2 if name == "interleaved" else 1) for name in SCHEDULES]
FREE = (1.0, 1.0, 1.0), (1.0, 1.2, 0.8), (1.0, 1.5, 0.5), (1.0, 1.0, 0.0)
"""Seconds of F, B and W: alike, as products without attention have them, with a frozen base."""


def passes(plan: Schedule) -> dict[tuple[str, int, int, int], int]:
    """Where in its stage's order each F, B and W of each micro-batch stands; a whole backward is a B and a W."""
    found: dict[tuple[str, int, int, int], int] = {}
    for stage, order in enumerate(plan.orders):
        for place, slot in enumerate(order):
            for one in slot.all:
                for kind in (INPUT, WEIGHT) if one.kind == BOTH else (one.kind,):
                    key = (kind, one.micro_batch, stage, one.chunk)
                    assert key not in found, f"{key} runs twice"
                    found[key] = place
    return found


def timed(name: str, p: int, m: int, times: tuple[float, float, float], virtual: int = 1) -> Pipelined:
    """A pipeline whose stages take those times, over all their chunks together, with free communication."""
    plan = schedule_of(name, p, m, virtual)
    share = p / plan.parts
    return pipelined_s(plan, *(seconds * share for seconds in times))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SCHEDULES), st.integers(1, 6), st.integers(1, 20), st.integers(1, 3))
def test_every_micro_batch_runs_each_slot_once_and_no_stage_waits_for_ever(name, p, m, virtual):
    p += p % 2 if name == "dualpipe" and p > 1 else 0
    plan = schedule_of(name, p, m, virtual if name == "interleaved" else 1)
    places = passes(plan)
    wanted = {(kind, i, *place) for i in range(m) for place in plan.route(i) for kind in (FORWARD, INPUT, WEIGHT)}
    assert set(places) == wanted
    for kind, i, stage, chunk in wanted:
        if kind != FORWARD:
            before = places[FORWARD if kind == INPUT else INPUT, i, stage, chunk]
            assert before <= places[kind, i, stage, chunk]
    run_of(plan)  # raises where slots wait for each other in a cycle


@pytest.mark.parametrize("times", FREE)
@pytest.mark.parametrize("p, m", [(2, 8), (4, 16), (8, 24)])
def test_bubbles_are_those_of_the_papers_where_communication_is_free(p, m, times):
    f, b, w = times
    whole = (p - 1) * (f + b + w)
    wanted = {"gpipe": whole, "1f1b": whole, "zb-h1": (p - 1) * (f + b - w), "zb-h2": (p - 1) * (f + b - 2 * w)}
    found = {name: float(timed(name, p, m, times).bubble_s) for name in wanted}
    assert found == pytest.approx(wanted, abs=1e-9)
    for virtual in (2, 4):
        bubble_s = float(timed("interleaved", p, m, times, virtual).bubble_s)
        assert bubble_s == pytest.approx(whole / virtual, abs=1e-9)


@pytest.mark.parametrize("p", [2, 4, 8])
def test_a_v_of_two_chunks_has_no_bubble_where_forward_dgrad_and_wgrad_take_as_long(p):
    assert float(timed("zb-v", p, 4 * p, (1.0, 1.0, 1.0)).bubble_s) == pytest.approx(0.0, abs=1e-9)
    assert float(timed("zb-v", p, 4 * p, (1.0, 1.0, 0.0)).bubble_s) > 0.5


@pytest.mark.parametrize("p", [2, 4, 8])
@pytest.mark.parametrize("times", [(1.0, 1.0, 1.0), (1.0, 1.0, 0.0)])
def test_the_bubble_of_dualpipe_is_the_paper_s(p, times):
    """(p/2 - 1)(F&B + B - 3W) with B the whole backward, and F&B as long as both one after the other."""
    f, b, w = times
    both = f + b + w
    assert float(timed("dualpipe", p, 5 * p, times).bubble_s) == pytest.approx((p / 2 - 1) * (both + b + w - 3 * w))


def test_a_pair_that_overlaps_well_shortens_dualpipe_and_no_other_schedule():
    plan, other = schedule_of("dualpipe", 4, 16), schedule_of("1f1b", 4, 16)
    apart, together = (float(pipelined_s(plan, 1.0, 1.0, 1.0, beside_s=both).step_s) for both in (3.0, 2.5))
    assert together < apart == float(pipelined_s(plan, 1.0, 1.0, 1.0).step_s)
    alone = [float(pipelined_s(other, 1.0, 1.0, 1.0, beside_s=both).step_s) for both in (3.0, 2.5)]
    assert alone[0] == alone[1]


@pytest.mark.parametrize("p, m", [(4, 12), (8, 32)])
def test_a_frozen_base_leaves_zero_bubble_nothing_to_fill_with(p, m):
    frozen = (1.0, 1.1, 0.0)
    assert float(timed("zb-h1", p, m, frozen).step_s) == pytest.approx(float(timed("1f1b", p, m, frozen).step_s))


@pytest.mark.parametrize("p", [2, 4, 8])
def test_activations_in_flight_are_those_of_the_papers(p):
    m = 4 * p
    held = {name: in_flight(schedule_of(name, p, m, virtual)) for name, virtual in EACH}
    assert held["gpipe"] == (m,) * p
    assert held["1f1b"] == tuple(float(p - stage) for stage in range(p))
    assert held["interleaved"][0] == pytest.approx(p * (1 + (p - 1) / (p * 2)))
    assert held["zb-h1"] == (p,) * p and max(held["zb-h2"]) == 2 * p - 1 and max(held["zb-v"]) == p
    assert max(held["dualpipe"]) == p + 1


@pytest.mark.parametrize("name, virtual", EACH)
@pytest.mark.parametrize("overlapped", [True, False])
def test_times_are_the_longest_paths_of_networkx(name, virtual, overlapped):
    """Edges to the next slot of a stage, to the next send of a link, and along the way of each micro-batch."""
    plan = schedule_of(name, 4, 9, virtual)
    rng = np.random.default_rng(7)
    forward, backward, weight = (list(rng.uniform(0.5, 2.0, plan.parts)) for _ in range(3))
    found = pipelined_s(plan, forward, backward, weight, 0.7, overlapped=overlapped)
    durations = found.finish_s - found.start_s
    graph = nx.DiGraph()
    for i, waits in enumerate(found.run.waits.tolist()):
        graph.add_weighted_edges_from((j, i, durations[j]) for j in waits if j < len(durations))
        graph.add_edge(i, "end", weight=durations[i])
    assert nx.dag_longest_path_length(graph) == pytest.approx(float(found.makespan_s))
    ends = {}
    for i in list(nx.topological_sort(graph))[:-1]:
        ends[i] = max((ends[j] for j in graph.predecessors(i)), default=0.0) + durations[i]
    assert np.allclose(found.finish_s, [ends[i] for i in range(len(durations))])


@pytest.mark.parametrize("name, virtual", EACH)
def test_many_scenarios_give_what_each_gives_alone(name, virtual):
    plan = schedule_of(name, 4, 8, virtual)
    forward, send = np.array([1.0, 2.0, 0.0]), np.array([0.1, 0.0, 3.0])
    many = pipelined_s(plan, forward, 1.5, 0.5, send)
    for i in range(3):
        one = pipelined_s(plan, forward[i], 1.5, 0.5, send[i])
        assert (many.step_s[i], many.bubble_s[i]) == pytest.approx((float(one.step_s), float(one.bubble_s)))


@pytest.mark.parametrize("name, virtual", EACH)
def test_slower_links_and_slower_stages_never_shorten_a_step(name, virtual):
    plan = schedule_of(name, 4, 8, virtual)
    sends = [float(pipelined_s(plan, 1.0, 1.0, 1.0, send_s).makespan_s) for send_s in (0.0, 0.2, 1.0, 5.0)]
    assert sends == sorted(sends)
    blocked = float(pipelined_s(plan, 1.0, 1.0, 1.0, 0.2, overlapped=False).makespan_s)
    assert blocked >= sends[1] - 1e-9
    heavier = [1.0] * (plan.parts - 1) + [1.5]
    assert float(pipelined_s(plan, heavier, 1.0, 1.0).makespan_s) > sends[0]


def test_a_heavy_head_sets_the_pace_of_the_whole_pipeline():
    """In a long step every stage waits for the last one, whose forward and backward take as long as they take."""
    plan = schedule_of("1f1b", 4, 64)
    found = pipelined_s(plan, [1.0, 1.0, 1.0, 1.6], [2.0, 2.0, 2.0, 3.2])
    assert float(found.step_s) == pytest.approx(64 * 4.8 + 3 * 3.0)


@pytest.mark.parametrize("name, virtual", EACH)
@pytest.mark.parametrize("overlapped", [True, False])
def test_the_slots_are_a_graph_with_the_same_times_and_a_track_for_each_stage(name, virtual, overlapped):
    plan = schedule_of(name, 4, 6, virtual)
    found = pipelined_s(plan, 1.0, 1.2, 0.8, 0.3, overlapped=overlapped)
    graph = slot_graph(found)
    placed = schedule(graph)
    assert float(placed.graph["latency_s"]) == pytest.approx(float(found.makespan_s))
    for i, entry in enumerate(found.run.entries):
        assert placed.nodes[name_of(entry)]["start_s"] == pytest.approx(found.start_s[i], abs=1e-9)
    events = gs.to_trace(PhaseEstimate(name="pipeline", build=lambda: graph))["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {f"stage{i}" for i in range(4)}


def test_stages_that_do_not_wait_at_the_optimizer_start_the_next_step_earlier():
    plan = schedule_of("zb-h2", 4, 12)
    alone, together = (float(pipelined_s(plan, 1.0, 1.0, 1.0, synchronous=s).step_s) for s in (False, True))
    assert alone == pytest.approx(36.0) and together == pytest.approx(39.0)


@pytest.mark.parametrize("asked, said", [
    (("1f1", 4, 8, 1), "did you mean '1f1b'"), (("1f1b", 4, 0, 1), "micro_batches = 0"),
    (("zb-v", 4, 8, 2), "virtual_stages = 2 is not allowed"), (("dualpipe", 3, 8, 1), "expected an even number"),
    (("interleaved", 1000, 10**6, 8), "accumulate = 1000000 is not allowed .* at most 12 micro-batches"),
    (("zb-h1", 8, 10**5, 1), "at most 12,500 micro-batches, 100,000 of all stages together"),
])  # fmt: skip
def test_what_there_is_no_schedule_for_is_refused(asked, said):
    with pytest.raises(gs.ConfigError, match=said):
        schedule_of(*asked)


def test_times_for_another_number_of_parts_are_refused():
    with pytest.raises(gs.GraphError, match="forward_s has 3 entries; expected one for each of 4 parts"):
        pipelined_s(schedule_of("1f1b", 4, 8), [1.0] * 3, 1.0)
