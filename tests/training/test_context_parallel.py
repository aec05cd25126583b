"""Context parallelism: ranks share tokens and pairs, nothing is done twice, and what travels is as in the papers."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.parallelism import CONTEXT_EXCHANGES
from graphsim.graph import add, walk
from graphsim.models.phase import Segment
from graphsim.ops import (
    AllGather,
    AllToAll,
    Attention,
    AttentionBackward,
    Collective,
    Gemm,
    Op,
    ReduceScatter,
    RingPass,
)
from graphsim.ops.scan import CausalConv
from graphsim.passes.context import ShareContext
from graphsim.training.data_parallel import steps_of
from graphsim.training.held import Held, HeldBytes, HeldUnit
from graphsim.training.train import setup_of, train
from tests.operations import example

TOKENS, HEADS, KEYS, WIDTH = 512.0, 8.0, 2.0, 64.0


def attended(kind: type[Attention] = Attention, **changes: Any) -> nx.DiGraph:
    """A block of one attention over a rank's own tokens of two sequences."""
    graph = nx.DiGraph()
    same = {
        "sequences": 2.0, "query_tokens": 2 * TOKENS, "kv_tokens": 2 * TOKENS, "pairs": TOKENS * (TOKENS + 1),
        "heads": HEADS, "kv_heads": KEYS, "head_dim": WIDTH, "value_dim": WIDTH,
    }  # fmt: skip
    add(graph, "qkv", Gemm(m=2 * TOKENS, n=(HEADS + 2 * KEYS) * WIDTH, k=64.0))
    add(graph, "attention", kind(**same | changes), ["qkv"])
    return graph


def ops(graph: nx.DiGraph, kind: type[Op]) -> list[Any]:
    return [op for _, op, _ in walk(graph) if isinstance(op, kind)]


@pytest.mark.parametrize("exchange", CONTEXT_EXCHANGES)
@pytest.mark.parametrize("kind", [Attention, AttentionBackward])
@pytest.mark.parametrize("window", [0.0, 100.0])
@pytest.mark.parametrize("causal", [True, False])
def test_pairs_of_all_ranks_are_those_of_the_whole_sequence(exchange, kind, window, causal):
    def pairs(length: float) -> float:
        return float(Segment(sequences=2.0, new_tokens=length).pairs(window, causal))

    ways = 4.0
    changes = {"window": window, "causal": causal, "pairs": pairs(TOKENS)}
    found = ops(ShareContext(ways=ways, exchange=exchange)(attended(kind, **changes)), Attention)
    heads = sum(float(op.pairs * op.heads) for op in found)
    assert heads * ways == pytest.approx(HEADS * pairs(TOKENS * ways))


@pytest.mark.parametrize("kind, times", [(Attention, 1.0), (AttentionBackward, 2.0)])
def test_keys_and_values_pass_by_all_other_ranks_and_their_gradients_go_along(kind, times):
    """2 * 2 * T/c * k * d bytes, c - 1 times forward and twice that backward (arXiv 2310.01889)."""
    graph = ShareContext(ways=4.0, stride=2.0)(attended(kind))
    (ring,) = ops(graph, RingPass)
    assert float(ring.work().message_bytes) == times * 3 * 2 * (2 * TOKENS) * KEYS * 2 * WIDTH
    assert (ring.group, ring.stride, float(ring.work().message_hops)) == (4.0, 2.0, 3.0)


def test_all_of_a_ring_but_its_last_part_is_attended_to_meanwhile():
    graph = ShareContext(ways=4.0)(attended())
    earlier, last = (graph.nodes[name]["op"] for name in ("attention.earlier", "attention"))
    assert earlier.pairs == pytest.approx(3 * last.pairs)
    assert nx.has_path(graph, "attention.ring", "attention")
    assert not nx.has_path(graph, "attention.ring", "attention.earlier")


def test_tokens_are_exchanged_for_heads_and_back():
    graph = ShareContext(ways=2.0, exchange="a2a")(attended())
    there, back = ops(graph, AllToAll)
    (op,) = ops(graph, Attention)
    assert (op.heads, op.kv_heads, op.query_tokens) == (HEADS / 2, KEYS / 2, 4 * TOKENS)
    assert there.elems == 2 * TOKENS * (HEADS + 2 * KEYS) * WIDTH and back.elems == 2 * TOKENS * HEADS * WIDTH
    assert list(graph)[-1] == "attention.all_to_all_out"


def test_heads_that_ranks_do_not_divide_are_refused():
    with pytest.raises(gs.InfeasibleError, match="node 'attention' has 8.0 heads on a device"):
        ShareContext(ways=3.0, exchange="a2a")(attended())


def test_gathered_keys_are_gathered_twice_and_their_gradients_scattered():
    forward, backward = (
        ShareContext(ways=2.0, exchange="all_gather")(attended(kind)) for kind in (Attention, AttentionBackward)
    )
    assert [type(op) for op in ops(forward, Collective)] == [AllGather]
    assert [type(op) for op in ops(backward, Collective)] == [AllGather, ReduceScatter]
    assert ops(forward, AllGather)[0].elems == 2 * 2 * TOKENS * KEYS * 2 * WIDTH


@pytest.mark.slow
@pytest.mark.parametrize("exchange", CONTEXT_EXCHANGES)
def test_flops_and_kept_values_of_all_ranks_are_those_of_one(exchange):
    found = {}
    for cp in (1, 4):
        degrees = gs.Parallelism(cp=cp, cp_comm=exchange)
        estimate = train(
            "llama-3.2-1b", "h100-sxm", seq_len=8192, method="full", recipe="megatron-bridge", parallelism=degrees
        )
        found[cp] = estimate
    for way in ("forward", "backward"):
        assert 4 * float(found[4].flops[way]) == pytest.approx(float(found[1].flops[way]), rel=1e-9)
    kept = {cp: float(one.memory.activations_bytes) for cp, one in found.items()}
    assert kept[4] < 0.3 * kept[1]
    assert float(found[4].step_s) > float(found[1].step_s) / 4


def test_tokens_of_a_step_are_counted_once_whatever_the_ranks():
    one, four = (train("llama-3.2-1b", "h100-sxm", seq_len=8192, parallelism=gs.Parallelism(cp=cp)) for cp in (1, 4))
    assert (
        float(one.tokens_per_s * one.step_s)
        == pytest.approx(float(four.tokens_per_s * four.step_s))
        == pytest.approx(8192)
    )
    assert float(four.tokens_per_s_per_gpu) < float(one.tokens_per_s_per_gpu)


def test_weight_gradients_are_summed_over_data_and_context_parallel_ranks():
    held = Held(trained_bytes=1e9, gathered_bytes=1e9, gradient_bytes=1e9, reduced_bytes=1e9)
    (steps,) = steps_of(
        HeldBytes(units=(HeldUnit(name="layers", times=2, shared=held),)), "ddp", gs.Parallelism(dp=4, cp=2)
    ).units
    assert steps.reduce[0].op.group == 8


@pytest.mark.parametrize("model, asked, said", [
    ("llama-3.2-1b", {"seq_len": 6, "parallelism": gs.Parallelism(cp=4)}, "cp = 4 is not allowed with seq_len = 6"),
])  # fmt: skip
def test_what_cannot_be_shared_is_refused(model, asked, said):
    with pytest.raises(gs.InfeasibleError, match=said):
        setup_of(model, "h100-sxm", **asked)


def test_layers_that_carry_a_state_along_tokens_are_refused():
    graph = nx.DiGraph()
    add(graph, "conv", example(CausalConv, 4.0))
    with pytest.raises(gs.InfeasibleError, match="node 'conv' .CausalConv., which passes a state along"):
        ShareContext(ways=2.0)(graph)


def test_degrees_as_arrays_give_what_each_gives_alone():
    graph = ShareContext(ways=np.array([1.0, 2.0, 8.0]))(attended())
    total = sum(op.pairs for op in ops(graph, Attention))
    for i, ways in enumerate((1.0, 2.0, 8.0)):
        alone = sum(float(op.pairs) for op in ops(ShareContext(ways=ways)(attended()), Attention))
        assert total[i] == pytest.approx(alone)
