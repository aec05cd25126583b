"""Laws of the backward pass: what it computes, what it leaves out, and that shares of devices add up to the whole."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

from graphsim.errors import ConfigError, GraphError
from graphsim.graph import add, to_text, validate, walk
from graphsim.lora.config import LoraConfig
from graphsim.ops import (
    AttentionBackward,
    Collective,
    Embedding,
    Gemm,
    Input,
    InputGradient,
    KeptValue,
    Loss,
    Op,
    Repeat,
    Sample,
    WeightGradient,
)
from graphsim.ops.direction import Direction
from graphsim.passes.backward import backward
from graphsim.passes.backward_rules import BackwardRules
from graphsim.passes.shard import shard
from graphsim.passes.trained import mark_trained
from tests.passes.autograd import flops, layer_of, step_of

FORWARD, AGAIN, BACK, UPDATE = Direction.FORWARD, Direction.RECOMPUTE, Direction.BACKWARD, Direction.UPDATE
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 160,
    "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 256,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip
T, H, F, V, L = 32.0, 64.0, 160.0, 256.0, 3.0
ALL = LoraConfig(rank=4, target_modules="all-linear")
ATTENTION = 4.0 * 8 * 8 * T * (T + 1) / 2
"""Flops of both products of one layer."""
LINEAR = 2.0 * T * (H * (H + 32 + 32 + H) + 3 * H * F)
"""Flops of one layer's linears."""
HEAD = 2.0 * T * H * V
FACTORS = 2.0 * T * 4 * ((H + H) * 2 + (H + 32) * 2 + 3 * (H + F))
"""Flops of one layer's adapters."""


def ops_of(step: nx.DiGraph, kind: type[Op]) -> list[tuple[str, Op, int]]:
    return [found for found in walk(step) if isinstance(found[1], kind)]


def kept_bytes(step: nx.DiGraph, again: bool = False) -> float:
    found = ops_of(step, KeptValue)
    return float(sum(op.kept_bytes * times for _, op, times in found if op.again is again))  # type: ignore[attr-defined]


def test_full_training_has_two_products_for_each_of_the_forwards() -> None:
    step = step_of(LLAMA, None, T)
    assert flops(step, FORWARD) == L * (LINEAR + ATTENTION) + HEAD
    assert flops(step, BACK) == 2 * (L * LINEAR + HEAD) + L * 2.5 * ATTENTION


def test_a_frozen_embedding_leaves_out_the_first_norms_gradient() -> None:
    """Its scale is trained, so that of the products behind it is asked for all the same."""
    step = step_of(LLAMA, None, T, embeddings=False)
    assert flops(step, BACK) == 2 * (L * LINEAR + HEAD) + L * 2.5 * ATTENTION
    first = set(step.nodes["layer_0.backward"]["op"].body)
    assert "input_layernorm.wgrad" in first
    assert "input_layernorm.backward" not in first
    assert "input_layernorm.backward" in step.nodes["layers_1_2.backward"]["op"].body
    assert "layer_0.backward" not in step_of(LLAMA, None, T, embeddings=False, input_requires_grad=True)


def test_a_frozen_embedding_and_norm_leave_out_the_first_layers_input_gradients() -> None:
    step = step_of(LLAMA, ALL, T)
    entry = 2.0 * T * H * (H + 32 + 32) + 3 * 2.0 * T * 4 * H
    assert flops(step, BACK) == L * (LINEAR + 2 * FACTORS + 2.5 * ATTENTION) + HEAD - entry


def test_lora_has_one_product_for_the_base_and_two_for_each_factor() -> None:
    step = step_of(LLAMA, ALL, T, input_requires_grad=True)
    assert flops(step, FORWARD) == L * (LINEAR + FACTORS + ATTENTION) + HEAD
    assert flops(step, BACK) == L * (LINEAR + 2 * FACTORS + 2.5 * ATTENTION) + HEAD


def test_no_gradient_is_as_large_as_the_frozen_weights() -> None:
    """The cheap association: dA = x^T (dy B^T), never (x^T dy) B^T."""
    for _, op, _ in ops_of(step_of(LLAMA, ALL, T), WeightGradient):
        assert isinstance(op, WeightGradient)
        assert 4.0 in (op.m, op.n)


def test_adapters_on_the_mlp_alone_leave_the_first_layers_attention_alone() -> None:
    step = step_of(LLAMA, LoraConfig(rank=4, target_modules=["gate_proj", "up_proj", "down_proj"]), T)
    first = [name for name, *_ in walk(step) if name.startswith("layer_0.backward.")]
    assert first
    assert not any("q_proj" in name or "attention.backward" in name or "o_proj" in name for name in first)


@pytest.mark.parametrize("rank", [0, 0.0, np.array([0.0, 0.0])])
def test_rank_zero_has_no_backward_and_keeps_nothing(rank: Any) -> None:
    step = step_of(LLAMA, LoraConfig(rank=rank, target_modules="all-linear"), T, recompute="full")
    assert not [name for name, op, _ in walk(step) if op.direction is not FORWARD]


@pytest.mark.slow
@pytest.mark.parametrize("rules", [{}, {"recompute": "full"}, {"adapter_format": "fp32", "lora_dropout": 0.1}])
def test_ranks_in_an_array_are_the_ranks_one_by_one(rules: dict[str, Any]) -> None:
    """A rank of 0 among them is no work and keeps nothing."""
    ranks = np.array([0.0, 16.0])
    together = step_of(LLAMA, LoraConfig(rank=ranks, target_modules="all-linear"), T, **rules)
    for direction in Direction:
        work = [op.work() * times for _, op, times in walk(together) if op.direction is direction]
        flops_of = sum((np.asarray(each.flops) for each in work), start=np.zeros(2))
        moved = sum((np.asarray(each.memory_bytes) for each in work), start=np.zeros(2))
        for i, rank in enumerate(ranks):
            alone = step_of(LLAMA, LoraConfig(rank=rank, target_modules="all-linear"), T, **rules)
            each = [op.work() * times for _, op, times in walk(alone) if op.direction is direction]
            assert flops_of[i] == pytest.approx(float(sum(work.flops for work in each)))
            assert moved[i] == pytest.approx(float(sum(work.memory_bytes for work in each)))
    kept = sum((np.asarray(op.kept_bytes) * times for _, op, times in ops_of(together, KeptValue)), start=np.zeros(2))
    assert kept[0] == 0
    assert kept[1] > 0


RECOMPUTED = [
    {"recompute": "full"}, {"recompute": "full", "reentrant": True}, {"recompute": "full", "recompute_every": 2},
    {"recompute": "selective"}, {"recompute": "selective", "recomputed": ("norm", "activation", "rope")},
]  # fmt: skip


@pytest.mark.parametrize("lora", [None, ALL], ids=["full", "lora"])
@pytest.mark.parametrize("rules", RECOMPUTED)
def test_recomputation_changes_what_is_kept_and_no_gradient(rules: dict[str, Any], lora: LoraConfig | None) -> None:
    plain, again = (
        step_of(LLAMA, lora, T, input_requires_grad=True),
        step_of(LLAMA, lora, T, input_requires_grad=True, **rules),
    )
    assert flops(again, BACK) == flops(plain, BACK)
    assert flops(again, FORWARD) == flops(plain, FORWARD)
    assert kept_bytes(again) < kept_bytes(plain)
    assert not flops(plain, AGAIN)
    assert 0 <= flops(again, AGAIN) <= flops(plain, FORWARD)


@pytest.mark.parametrize(("every", "layers"), [(1, 3), (2, 2), (3, 1)])
@pytest.mark.parametrize("lora", [None, ALL], ids=["full", "lora"])
def test_only_every_nth_layer_runs_again(every: int, layers: int, lora: LoraConfig | None) -> None:
    rules: dict[str, Any] = {"input_requires_grad": True, "recompute": "full"}
    plain, whole, part = (
        step_of(LLAMA, lora, T, **rules, recompute_every=n) if n else step_of(LLAMA, lora, T, input_requires_grad=True)
        for n in (0, 1, every)
    )
    assert flops(part, AGAIN) == pytest.approx(flops(whole, AGAIN) * layers / 3)
    saved = kept_bytes(plain) - kept_bytes(whole)
    assert kept_bytes(plain) - kept_bytes(part) == pytest.approx(saved * layers / 3)


def test_a_checkpointed_layer_keeps_its_input_and_nothing_else() -> None:
    step = step_of(LLAMA, None, T, recompute="full")
    body = step.nodes["layers_0_2.backward"]["op"].body
    kept = [op for _, op in body.nodes(data="op") if isinstance(op, KeptValue) and not op.again]
    assert [(op.of, op.kept_bytes) for op in kept] == [("layers_0_2.input", 2 * T * H)]


def test_what_was_kept_of_a_layer_is_what_it_keeps_again() -> None:
    """But for what is the layer's input, which is kept already."""
    plain = step_of(LLAMA, None, T, embeddings=True)
    again = step_of(LLAMA, None, T, recompute="full")
    layer = sum(kept_bytes_of(plain, "layers_0_2.backward", again=False))
    assert sum(kept_bytes_of(again, "layers_0_2.backward", again=True)) == layer


def kept_bytes_of(step: nx.DiGraph, repeat: str, again: bool) -> list[float]:
    body = step.nodes[repeat]["op"].body
    return [op.kept_bytes for _, op in body.nodes(data="op") if isinstance(op, KeptValue) and op.again is again]


@pytest.mark.parametrize("sequence_parallel", [False, True], ids=["tp", "sp"])
@pytest.mark.parametrize(("lora", "rules"), [(None, {}), (ALL, {}), (None, {"recompute": "full"})])
def test_shares_of_devices_add_up_to_the_whole(
    lora: LoraConfig | None, rules: dict[str, Any], sequence_parallel: bool
) -> None:
    """But for what every device has: without sequence parallelism norms and residuals, with both the factors."""
    whole = step_of(LLAMA, lora, T, input_requires_grad=True, **rules)
    part = shard(whole, 4, sequence_parallel)
    validate(part, "sharded")
    for kind in (WeightGradient, InputGradient, AttentionBackward):
        found, mine = ({n: op for n, op, _ in ops_of(step, kind)} for step in (whole, part))
        assert found.keys() == mine.keys()
        for name, op in found.items():
            if not op.adapter:
                assert 4 * mine[name].work().flops == pytest.approx(op.work().flops), name
    if lora is None and sequence_parallel:
        assert 4 * cut_bytes(part) == pytest.approx(cut_bytes(whole))


def cut_bytes(step: nx.DiGraph) -> float:
    """Of what is kept, less the numbers of tokens, which every device has."""
    found = ((op, times) for _, op, times in ops_of(step, KeptValue) if op.what not in ("ids", "targets", "total"))  # type: ignore[attr-defined]
    return float(sum(op.kept_bytes * times for op, times in found))  # type: ignore[attr-defined]


def collectives(step: nx.DiGraph, repeat: str, *directions: Direction) -> dict[str, float]:
    body = step.nodes[repeat]["op"].body
    return {
        name: float(op.elems)
        for name, op in body.nodes(data="op")
        if isinstance(op, Collective) and op.direction in directions
    }


def test_sequence_parallelism_gathers_again_where_a_weight_gradient_asks_for_it() -> None:
    """Korthikanti et al., arXiv 2205.05198, section 4.2.2; a frozen base does without."""
    full = shard(step_of(LLAMA, None, T), 4, sequence_parallel=True)
    frozen = shard(step_of(LLAMA, LoraConfig(rank=4, target_modules=["down_proj"]), T), 4, sequence_parallel=True)
    again = {"input_layernorm.kept.all_gather", "post_attention_layernorm.kept.all_gather"}
    assert again <= set(collectives(full, "layers_0_2.backward", *Direction))
    assert not again & set(collectives(frozen, "layers_1_2.backward", *Direction))


def test_tensor_parallelism_sums_two_gradients_of_a_layers_values() -> None:
    """Megatron-LM, arXiv 1909.08053, section 3: one all-reduce behind each column-parallel pair, as in the forward."""
    step = shard(step_of(LLAMA, None, T), 4)
    found = collectives(step, "layers_0_2.backward", FORWARD, BACK)
    assert sorted(found.values()) == [T * H, T * H]


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_gradients_of_weights_that_every_device_has_are_summed_where_each_has_a_part(sequence_parallel: bool) -> None:
    step = shard(step_of(LLAMA, None, T), 4, sequence_parallel)
    summed = collectives(step, "layers_0_2.backward", UPDATE)
    norms = {f"{norm}.wgrad.all_reduce" for norm in ("input_layernorm", "post_attention_layernorm")}
    assert set(summed) == (norms if sequence_parallel else set())


def test_one_device_needs_no_collective() -> None:
    step = step_of(LLAMA, ALL, T)
    assert shard(step, 1) is step
    parts = shard(step, np.array([1.0, 2.0, 4.0]))
    validate(parts, "sharded")


def test_a_value_of_several_users_has_its_gradients_added() -> None:
    step = step_of(LLAMA, None, T)
    body = step.nodes["layers_0_2.backward"]["op"].body
    added = body.nodes["input_layernorm.add_gradients"]["op"]
    assert (added.reads, added.elems, added.launches) == (3, T * H, 2)


def test_the_tied_head_and_the_embedding_are_trained_together() -> None:
    tied = LLAMA | {"tie_word_embeddings": True}
    names = {name for name, *_ in walk(step_of(tied, None, T))}
    assert {"lm_head.wgrad", "embed_tokens.wgrad"} <= names
    frozen = {name for name, *_ in walk(step_of(tied, None, T, embeddings=False))}
    assert not {"lm_head.wgrad", "embed_tokens.wgrad"} & frozen


def test_a_saved_module_is_trained_in_full() -> None:
    lora = LoraConfig(rank=4, target_modules=["q_proj"], modules_to_save=("lm_head",))
    names = {name for name, *_ in walk(step_of(LLAMA, lora, T))}
    assert "lm_head.wgrad" in names
    assert "lm_head.wgrad" not in {name for name, *_ in walk(step_of(LLAMA, ALL, T))}


def test_an_operation_without_a_rule_is_named() -> None:
    body = nx.DiGraph()
    add(body, "input", Input(elems=T * H))
    add(body, "odd", Sample(rows=T, vocab=H), ["input"])
    graph = nx.DiGraph()
    add(graph, "embed", Embedding(tokens=T, entries=V, width=H))
    add(graph, "odd", _Odd(elems=T * H), ["embed"])
    add(graph, "loss", Loss(rows=T, vocab=H), ["odd"])
    marked = mark_trained(graph, base=True, adapters=False)
    with pytest.raises(GraphError, match="'odd' is of kind _Odd, for which there is no gradient rule"):
        backward(marked, BackwardRules())


class _Odd(Op):
    __slots__ = ("elems",)

    def __init__(self, elems: float) -> None:
        Op.__init__(self)
        object.__setattr__(self, "elems", elems)

    @property
    def out_elems(self) -> float:
        return self.elems


@pytest.mark.parametrize("field", [{"recompute": "some"}, {"attention": "fast"}, {"recomputed": ("loss",)}])
def test_a_rule_that_is_not_known_is_told(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is not known"):
        BackwardRules(**field)


def test_the_forward_graph_stays_as_it_was() -> None:
    body = nx.DiGraph()
    add(body, "input", Input(elems=T * H))
    add(body, "linear", Gemm(m=T, n=H, k=H), ["input"])
    graph = layer_of(body, H, T)
    marked = mark_trained(graph, base=True, adapters=False)
    text = to_text(marked)
    backward(marked, BackwardRules(recompute="full"))
    assert to_text(marked) == text
    assert isinstance(marked.nodes["layer"]["op"], Repeat)
