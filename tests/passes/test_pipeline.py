"""Stages and micro-batches: who hands what to whom, and when the last is done."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import add, validate
from graphsim.graph.schedule import makespan_s
from graphsim.ops import Input, Op, Repeat, SendReceive
from graphsim.passes.pipeline import layer_ranges, pipeline
from graphsim.units import Num
from tests.engines import each_engine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Busy(Op):
    """Takes as long as it says."""

    seconds: Num

    @property
    def out_elems(self) -> Num:
        return 8.0


def stage(seconds: Num, first: bool) -> nx.DiGraph:
    graph = nx.DiGraph()
    x = [] if first else [add(graph, "input", Input(elems=8.0))]
    add(graph, "work", Busy(seconds=seconds), x)
    return graph


def finished(graph: nx.DiGraph, send_s: float = 0.0) -> Num:
    for _, data in graph.nodes(data=True):
        data["latency_s"] = getattr(data["op"], "seconds", send_s if isinstance(data["op"], SendReceive) else 0.0)
    return makespan_s(graph)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("micro_batches", [1, 2, 5, 8])
def test_balanced_stages_are_done_after_m_plus_p_minus_1_turns(stages: int, micro_batches: int) -> None:
    """GPipe, arXiv 1811.06965, section 2.3: the bubble is p - 1 turns; on every scenario at once."""
    seconds = np.array([1.0, 2.0, 0.5])
    graph = pipeline([[stage(seconds, s == 0) for s in range(stages)]] * micro_batches, 8.0)
    assert np.array_equal(finished(graph), (micro_batches + stages - 1) * seconds)


@pytest.mark.parametrize("times", [[3.0, 1.0, 2.0], [1.0, 5.0, 1.0], [1.0, 2.0, 4.0]])
def test_the_slowest_stage_sets_the_pace(times: list[float]) -> None:
    graph = pipeline([[stage(t, s == 0) for s, t in enumerate(times)]] * 6, 8.0)
    assert finished(graph) == sum(times) + 5 * max(times)


def test_handing_on_overlaps_with_the_next_micro_batch() -> None:
    graph = pipeline([[stage(4.0, True), stage(4.0, False)]] * 3, 8.0)
    assert finished(graph, send_s=1.0) == 4.0 + 1.0 + 3 * 4.0


@pytest.mark.parametrize(("layers", "stages"), [(32, 4), (10, 3), (7, 7), (80, 6), (5, 1)])
def test_layers_are_dealt_out_in_order_and_as_evenly_as_possible(layers: int, stages: int) -> None:
    ranges = layer_ranges(layers, stages)
    assert [i for r in ranges for i in r] == list(range(layers))
    sizes = [len(r) for r in ranges]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("batch", "pp", "asked", "expected"), [(8, 4, 0, 4), (3, 4, 0, 3), (1, 4, 0, 1), (8, 2, 5, 5), (2, 2, 5, 2)]
)
def test_each_micro_batch_is_handed_on_between_neighbours(batch: int, pp: int, asked: int, expected: int) -> None:
    parallelism = gs.Parallelism(pp=pp, micro_batches=asked)
    graph = gs.build_graph("gpt-2", batch=batch, input_tokens=10, parallelism=parallelism)
    validate(graph)
    sends = {name: op for name, op in graph.nodes(data="op") if isinstance(op, SendReceive)}
    assert len(sends) == expected * (pp - 1)
    assert sum(op.elems for op in sends.values()) == (pp - 1) * batch * 10 * 768
    streams = {op.stream for op in sends.values()}
    assert streams == {f"stage{s}.network" for s in range(pp - 1)}


@pytest.mark.parametrize(
    ("batch", "dp", "pp", "asked"), [(7, 1, 3, 0), (7, 2, 3, 0), (13, 3, 2, 4), (5, 1, 2, 9), (64, 4, 1, 0)]
)
def test_no_sequence_is_lost_or_invented(batch: int, dp: int, pp: int, asked: int) -> None:
    """The fullest replica gets ceil(batch / dp) sequences; its micro-batches hold exactly these."""
    parallelism = gs.Parallelism(pp=pp, dp=dp, micro_batches=asked)
    graph = gs.build_graph("gpt-2", batch=batch, input_tokens=10, parallelism=parallelism)
    tables = [op for name, op in graph.nodes(data="op") if name.rpartition(".")[2] == "wte"]
    sizes = [op.tokens / 10 for op in tables]
    assert sum(sizes) == -(-batch // dp)
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


@pytest.mark.parametrize("sequence", [1, 2])
def test_stages_together_do_what_the_model_does(sequence: int) -> None:
    one = gs.build_graph("llama-3.2-1b", batch=6, input_tokens=64, parallelism=gs.Parallelism(tp=2, sp=sequence))
    staged = gs.build_graph(
        "llama-3.2-1b", batch=6, input_tokens=64, parallelism=gs.Parallelism(tp=2, sp=sequence, pp=3)
    )
    validate(staged)
    assert gs.total_work(staged).flops == pytest.approx(gs.total_work(one).flops, rel=1e-12)
    layers = sum(op.times for _, op in staged.nodes(data="op") if isinstance(op, Repeat))
    assert layers == 3 * 16


def test_replicas_share_the_batch_and_nothing_else() -> None:
    split = gs.simulate("gpt-2", "l4", batch=12, parallelism=gs.Parallelism(dp=3), engine="reference")
    alone = gs.simulate("gpt-2", "l4", batch=4, engine="reference")
    assert (split.ttft_s, split.tpot_s, split.latency_s) == (alone.ttft_s, alone.tpot_s, alone.latency_s)
    assert split.tokens_per_s == pytest.approx(3 * alone.tokens_per_s)
    assert split.memory.total_bytes == alone.memory.total_bytes and split.memory.max_batch == 3 * alone.memory.max_batch


def test_micro_batches_without_stages_run_one_after_another() -> None:
    """Twice the micro-batches on one device: two prompt steps of half the batch, and as much for each token."""
    halves = gs.simulate(
        "gpt-2", "l4", batch=8, output_tokens=9, parallelism=gs.Parallelism(micro_batches=2), engine="reference"
    )
    half = gs.simulate("gpt-2", "l4", batch=4, output_tokens=9, engine="reference")
    assert halves.ttft_s == pytest.approx(2 * half.ttft_s) and halves.tpot_s == pytest.approx(2 * half.tpot_s)


@pytest.mark.parametrize("engine", each_engine())
@pytest.mark.parametrize("model", ["llama-3.2-1b", pytest.param("mixtral-8x7b", marks=pytest.mark.slow)])
def test_a_micro_batch_that_no_sequence_is_left_for_takes_no_time(engine: str, model: str) -> None:
    """One sequence through two stages leaves the second micro-batch empty: its step recurs after its way through."""
    lora = gs.LoraConfig(rank=8, target_modules=["q_proj"] if model == "mixtral-8x7b" else ["attn", "ffn"])
    estimate = gs.simulate(model, "h100-sxm", 1, 64, 4, gs.Parallelism(pp=2), lora, engine=engine)
    several = gs.simulate(model, "h100-sxm", 2, 64, 4, gs.Parallelism(pp=2), lora, engine=engine)
    assert 0 < estimate.tpot_s <= several.tpot_s and np.isfinite(estimate.latency_s)
