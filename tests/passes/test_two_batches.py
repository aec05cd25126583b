"""Two halves of a step take turns at each exchange: what that hides, what it costs, and where it changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.cost.base import annotate
from graphsim.graph import add, unroll, validate, walk
from graphsim.graph.schedule import makespan_s
from graphsim.lora.host import EngineHost
from graphsim.lora.profile import load_profile
from graphsim.ops import ExchangeTokens, Input, Op, Repeat
from graphsim.passes.two_batches import two_batches
from graphsim.units import Num
from tests.passes.exchanging import EP, deployment, simulated

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # halves without rows are priced without NaN

LAYERS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Busy(Op):
    """Takes as long as it says."""

    seconds: Num
    elems: Num

    @property
    def out_elems(self) -> Num:
        return self.elems


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sent(ExchangeTokens):
    """An exchange that takes as long as it says."""

    seconds: Num


def step(elems: Num = 8.0, layers: int = LAYERS, **seconds: Num) -> nx.DiGraph:
    """Layers of attention, dispatch, experts, combine, and an end that joins the residual."""
    body, graph = nx.DiGraph(), nx.DiGraph()
    add(body, "input", Input(elems=elems))
    add(body, "attention", Busy(elems=elems, seconds=seconds["attention"]), ["input"])
    add(body, "dispatch", Sent(elems=elems, group=4.0, seconds=seconds["dispatch"]), ["attention"])
    add(body, "experts", Busy(elems=elems, seconds=seconds["experts"]), ["dispatch"])
    add(body, "combine", Sent(elems=elems, group=4.0, seconds=seconds["combine"]), ["experts"])
    add(body, "end", Busy(elems=elems, seconds=seconds["end"]), ["attention", "combine"])
    add(graph, "embed", Busy(elems=elems, seconds=0.0))
    add(graph, "layers", Repeat(body=body, times=layers), ["embed"])
    add(graph, "head", Busy(elems=elems, seconds=0.0), ["layers"])
    return graph


def finished(graph: nx.DiGraph) -> Num:
    def annotated(graph: nx.DiGraph) -> None:
        for _, data in graph.nodes(data=True):
            data["latency_s"] = getattr(data["op"], "seconds", 0.0)
            if isinstance(data["op"], Repeat):
                annotated(data["op"].body)

    annotated(graph)
    return makespan_s(graph)


def taking_turns(**seconds: Num) -> nx.DiGraph:
    return two_batches(step(**seconds), step(**seconds), step(16.0, **seconds))


@pytest.mark.parametrize("layers", [1, 2, 3, 61])
def test_exchanges_shorter_than_the_other_halfs_turn_cost_nothing_but_the_last_one(layers: int) -> None:
    """All of both halves' kernels back to back; the second half's last combine has only an end to run beside."""
    graph = taking_turns(layers=layers, attention=4.0, dispatch=3.0, experts=5.0, combine=2.0, end=1.0)
    assert finished(graph) == 2 * layers * (4.0 + 5.0) + 2 * (layers - 1) * 1.0 + 2.0 + 1.0


@pytest.mark.parametrize("layers", [1, 2, 3, 61])
def test_where_exchanges_take_longer_all_of_them_follow_each_other(layers: int) -> None:
    """Ahead of the first dispatch lies an attention, behind the last combine an end; on every scenario at once."""
    sent = np.array([10.0, 20.0])
    graph = taking_turns(layers=layers, attention=4.0, dispatch=sent, experts=5.0, combine=2 * sent, end=1.0)
    assert np.array_equal(finished(graph), 4.0 + 2 * layers * 3 * sent + 1.0)


def test_a_layer_alone_is_as_long_as_drawn_by_hand() -> None:
    """Attentions 0-4 and 4-8, dispatches 4-7 and 8-11, experts 8-9 and 11-12; the first combine finds the second
    dispatch on its way, so combines 11-17 and 17-23, ends 17-18 and 23-24.
    """
    assert finished(taking_turns(layers=1, attention=4.0, dispatch=3.0, experts=1.0, combine=6.0, end=1.0)) == 24.0


def test_the_critical_path_runs_through_the_layers_between_the_first_and_the_last() -> None:
    graph = taking_turns(attention=4.0, dispatch=3.0, experts=5.0, combine=2.0, end=1.0)
    finished(graph)
    path = gs.critical_path(graph)
    assert path[0].endswith("embed") and path[-1] == "second.layers.4.end", "the head takes no time"
    assert {"layers.first.attention", "layers.second.attention"} < set(path)


def test_the_repeat_is_the_same_program_as_its_layers_spelt_out() -> None:
    for seconds in ((4.0, 3.0, 5.0, 2.0, 1.0), (1.0, 9.0, 2.0, 7.0, 3.0), (6.0, 2.0, 1.0, 8.0, 0.0)):
        graph = taking_turns(**dict(zip(("attention", "dispatch", "experts", "combine", "end"), seconds, strict=True)))
        validate(graph)
        validate(unroll(graph))
        assert finished(graph) == finished(unroll(graph))
        kernels = [op for _, op, times in walk(graph) for _ in range(times) if isinstance(op, Busy | Sent)]
        assert len(kernels) == 2 * (1 + 5 * LAYERS) + 1, "what is not in layers that exchange tokens runs once"


SPLIT = {"base": "vllm-deepep", "name": "split", "split_prompt_tokens": 512, "split_decode_tokens": 32}
WHOLE = "vllm-deepep"


@pytest.mark.parametrize("lora", [None, gs.LoraConfig(rank=16, target_modules="all-linear", active_adapters=2)])
def test_halves_do_the_work_of_the_whole_and_read_no_weight_more_than_twice(lora: gs.LoraConfig | None) -> None:
    whole, split = (
        gs.total_work(gs.build_graph(deployment(engine, lora=lora), "decode", batch=EP * 64, input_tokens=200))
        for engine in (WHOLE, SPLIT)
    )
    assert float(split.message_bytes) == pytest.approx(float(whole.message_bytes))
    assert float(whole.weight_bytes) < float(split.weight_bytes) < 2 * float(whole.weight_bytes)
    if lora is None:
        assert float(split.flops) == pytest.approx(float(whole.flops))


@pytest.mark.parametrize("tp", [1, 2])
def test_a_split_step_lies_between_its_longest_stream_and_all_of_them_one_after_another(tp: int) -> None:
    for phase in (simulated(SPLIT, parallelism=gs.Parallelism(tp=tp, ep=EP * tp)).decode, simulated(SPLIT).prefill):
        taken: dict[str, float] = {}
        for name, op, times in walk(phase.graph):
            inside = phase.graph.nodes.get(name) or _inside(phase.graph, name)
            taken[op.stream] = taken.get(op.stream, 0.0) + times * float(inside["latency_s"])
        seconds = float(makespan_s(phase.graph))
        assert max(taken.values()) * (1 - 1e-9) <= seconds <= sum(taken.values()) * (1 + 1e-9)
        assert taken["network"] > 0.0


def _inside(graph: nx.DiGraph, name: str) -> dict[str, Any]:
    repeat = next(node for node in graph if name.startswith(f"{node}."))
    found: dict[str, Any] = graph.nodes[repeat]["op"].body.nodes[name.removeprefix(f"{repeat}.")]
    return found


def test_communication_bound_prompts_gain_and_small_steps_lose() -> None:
    """The engines' own advice: too few tokens are slower in halves (a comment in SGLang's two_batch_overlap.py)."""
    low = {**SPLIT, "split_decode_tokens": 2}
    assert float(simulated(SPLIT).ttft_s) < 0.8 * float(simulated(WHOLE).ttft_s)
    assert float(simulated(low, 4).tpot_s) > float(simulated(WHOLE, 4).tpot_s)


def test_steps_below_the_threshold_are_those_that_are_never_split_also_among_others() -> None:
    each = np.array([31.0, 32.0, 33.0])
    split, whole = simulated(SPLIT, each), simulated(WHOLE, each)
    same = np.isclose(split.tpot_s, whole.tpot_s, rtol=1e-12)
    assert same.tolist() == [True, False, False]
    assert np.allclose(split.tpot_s, [float(simulated(SPLIT, n).tpot_s) for n in each], rtol=1e-12)


def test_an_odd_number_of_sequences_is_split_into_whole_ones_and_the_head_runs_once() -> None:
    graph = gs.build_graph(deployment(SPLIT), "decode", batch=EP * 33, input_tokens=200)
    validate(graph, "lowered")
    rows = {name: float(op.m) for name, op, _ in walk(graph) if name.endswith(("o_proj", "lm_head"))}  # type: ignore[attr-defined]
    assert {rows["layers_0_5.first.o_proj"], rows["layers_0_5.second.o_proj"]} == {17.0, 16.0}
    assert rows["lm_head"] == 33.0


@pytest.mark.parametrize(
    "described",
    [
        {"parallelism": gs.Parallelism(tp=8, ep=8)},
        {"parallelism": gs.Parallelism(tp=2)},
        {"parallelism": gs.Parallelism(pp=2, ep=4)},
        {"model": "llama-3.2-1b", "parallelism": gs.Parallelism(dp=4)},
    ],
)
def test_without_an_exchange_across_replicas_or_in_a_pipeline_nothing_changes(described: dict[str, Any]) -> None:
    texts = [
        gs.to_text(gs.build_graph(deployment(engine, **described), "decode", batch=512, input_tokens=64))
        for engine in (SPLIT, WHOLE)
    ]
    assert texts[0] == texts[1]


def test_memory_is_that_of_the_whole_step() -> None:
    split, whole = simulated(SPLIT).memory, simulated(WHOLE).memory
    assert all(getattr(split, name) == getattr(whole, name) for name in whole.__dataclass_fields__)


@pytest.mark.parametrize("engine", ["vllm-deepep-dbo", "sglang-deepep-tbo"])
def test_a_compiled_step_is_the_simulated_one_on_both_sides_of_the_threshold(engine: str) -> None:
    alone = replace(load_profile(engine), host=EngineHost())
    described = deployment(alone, lora=gs.LoraConfig(rank=16))
    compiled = gs.compile_step(described)
    for each in (1, 3, 31, 48):
        for phase, asked in (
            ("prefill", {"prefill_tokens": 300, "prefill_sequences": each}),
            ("decode", {"decode_batch": each, "context": 300}),
        ):
            graph = gs.build_graph(described, phase, batch=EP * each, input_tokens=300)
            wanted = makespan_s(annotate(graph, described.device, described.price))
            assert float(compiled(**asked)) == pytest.approx(float(wanted), rel=1e-9)
