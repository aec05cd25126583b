"""The backward pass of every family of layers and every method of adapting: its products, its shares, its refusals."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from graphsim.errors import GraphError
from graphsim.graph import add, validate, walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject
from graphsim.models.build import build
from graphsim.models.loading import load_model
from graphsim.models.phase import prefill
from graphsim.ops import (
    Attention,
    AttentionBackward,
    Embedding,
    ExchangeTokens,
    ExpertGemm,
    Gemm,
    Handed,
    Input,
    LoraGemm,
    Loss,
    Op,
    OutsideValue,
    Repeat,
    WeightGradient,
)
from graphsim.ops.direction import Direction
from graphsim.ops.precision import load_precision
from graphsim.passes.experts import DealExperts
from graphsim.passes.shard import shard
from tests.passes.autograd import layer_of, step_of, trained_step

MODELS = {
    "gemma-2-2b": 0.0, "gpt-2": 0.0, "falcon-40b": 0.0, "gpt-oss-20b": 0.0, "deepseek-v2-lite": 0.0, "glm-5": 0.0,
    "falcon-mamba-7b": 0.0, "codestral-mamba-7b": 0.0, "kimi-linear-48b-a3b": 0.0, "flan-t5-large": 64.0,
    "whisper-large-v3": 1500.0,
}  # fmt: skip
"""A model of each family, and rows that its encoder makes of a sequence."""

TOKENS = 64.0
VARIANTS = [
    "adalora", "alora", "bd-lora", "boft", "c3a", "delora", "dora", "fourierft", "hra", "ia3", "loha", "lokr", "miss",
    "oft", "qa-lora", "randlora", "road", "rslora", "shira", "vblora", "vera",
]  # fmt: skip
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 256,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip


def forward_of(model: str) -> nx.DiGraph:
    phase = prefill(1.0, TOKENS, all_logits=True, source_tokens=MODELS.get(model, 0.0))
    return build(load_model(model, check=False), phase, load_precision("bf16"))


def products(step: nx.DiGraph) -> dict[str, Op]:
    """The model's own products of the forward pass."""
    found = {name: op for name, op, _ in walk(step) if isinstance(op, Gemm) and op.direction is Direction.FORWARD}
    return {name: op for name, op in found.items() if not isinstance(op, LoraGemm)}


def gradient_name(name: str, part: str) -> str:
    """Of a node `layers.q_proj`, that of its gradient: `layers.backward.q_proj.dgrad`."""
    for repeat in ("encoder.layer_", "encoder.layers_", "layer_", "layers_"):
        if name.startswith(repeat):
            head, _, rest = name.removeprefix("encoder.").partition(".")
            tower = "encoder." if repeat.startswith("encoder") else ""
            return f"{tower}{head}.backward.{rest}.{part}"
    return f"{name}.{part}"


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_product_has_two_gradients_of_its_size(model: str) -> None:
    """But those that only choose: what picks a query's keys has no gradient."""
    step = trained_step(forward_of(model), True)
    ops = {name: op for name, op, _ in walk(step)}
    checked = 0
    for name, op in products(step).items():
        back, weights = (ops.get(gradient_name(name, part)) for part in ("dgrad", "wgrad"))
        if back is None and any(word in name for word in ("indexer", "wq_b", "wk", "weights_proj")):
            continue
        assert weights is not None and weights.work().flops == pytest.approx(op.work().flops), name
        if back is not None:
            assert back.work().flops == pytest.approx(op.work().flops), name
            checked += 1
    assert checked > 1


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_shares_of_products_add_up(model: str) -> None:
    step = trained_step(forward_of(model), True)
    part = shard(step, 2, sequence_parallel=model[0] > "g")  # of either kind some
    validate(part, "sharded")
    mine = {name: op for name, op, _ in walk(part)}
    for name, op, _ in walk(step):
        cut = isinstance(op, WeightGradient) and op.split.value in ("column", "row")
        if isinstance(op, AttentionBackward) or cut:
            assert 2 * mine[name].work().flops == pytest.approx(op.work().flops), name


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gemma-2-2b", "gpt-oss-20b", "deepseek-v2-lite", "codestral-mamba-7b"])
def test_lora_on_all_linears_leaves_frozen_weights_without_gradients(model: str) -> None:
    graph = inject(forward_of(model), LoraConfig(rank=4, target_modules="all-linear"))
    for rules in ({}, {"recompute": "full", "hidden_dropout": True}):
        step = trained_step(graph, False, **rules)
        validate(shard(step, 2, True), "sharded")
        weights = [op for _, op, _ in walk(step) if isinstance(op, WeightGradient)]
        assert weights
        assert all(op.adapter for op in weights)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_method_trains_what_it_trains_and_no_more(variant: str) -> None:
    lora = LoraConfig(rank=8, variant=variant, target_modules=["q_proj", "down_proj"])
    step = step_of(LLAMA, lora, TOKENS)
    own = {name for name, op, _ in walk(step) if op.ends and not op.adapter}
    assert not own, f"gradients of frozen weights: {own}"
    assert any(op.ends for _, op, _ in walk(step))
    validate(shard(step, 2, sequence_parallel=True), "sharded")


@pytest.mark.parametrize("variant", ["dora", "vera", "ia3", "oft", "loha", "vblora"])
def test_rank_zero_of_every_method_is_the_frozen_model(variant: str) -> None:
    step = step_of(LLAMA, LoraConfig(rank=0, variant=variant, target_modules=["q_proj", "down_proj"]), TOKENS)
    worked = [op.work() for _, op, _ in walk(step) if op.direction is not Direction.FORWARD]
    assert not sum(work.flops + work.vector_flops + work.memory_bytes for work in worked)


def test_attention_has_five_products_for_two_and_reads_them_where_they_were_kept() -> None:
    step = trained_step(forward_of("deepseek-v2-lite"), True)
    ops = {name: op for name, op, _ in walk(step)}
    ahead, back = ops["layers_1_26.attention"], ops["layers_1_26.backward.attention.backward"]
    assert isinstance(ahead, Attention)
    widths = 3 * 192 + 2 * 128
    assert back.work().flops / ahead.work().flops == pytest.approx(widths / (192 + 128))
    kept = step_of(LLAMA, None, TOKENS, attention="unfused")
    unfused = next(op for name, op, _ in walk(kept) if name.endswith("attention.backward"))
    flash = next(op for name, op, _ in walk(step_of(LLAMA, None, TOKENS)) if name.endswith("attention.backward"))
    assert unfused.work().flops / flash.work().flops == pytest.approx(4 / 5)


def test_the_exchange_of_tokens_goes_the_way_back() -> None:
    graph = DealExperts(ep=np.float64(8.0), tp=1.0)(forward_of("mixtral-8x7b"))
    for lora in (None, LoraConfig(rank=4, target_modules="all-linear")):
        step = trained_step(inject(graph, lora), lora is None)
        exchanged = [op for _, op, _ in walk(step) if isinstance(op, ExchangeTokens)]
        ahead = [op for op in exchanged if op.direction is Direction.FORWARD]
        back = [op for op in exchanged if op.direction is Direction.BACKWARD]
        assert [op.elems for op in ahead] == [op.elems for op in back[::-1]]
        assert [op.there for op in ahead] == [not op.there for op in back[::-1]]


def test_experts_on_other_devices_have_gradients_of_their_own() -> None:
    graph = DealExperts(ep=4.0, tp=4.0)(forward_of("mixtral-8x7b"))
    step = shard(trained_step(graph, True), 4)
    validate(step, "sharded")
    found = [op for name, op, _ in walk(step) if name.endswith("expert_down_proj.wgrad")]
    assert found and all(isinstance(op, ExpertGemm) and op.experts == 2 for op in found)


@pytest.mark.parametrize("op", [OutsideValue(elems=TOKENS * 64), Handed(elems=TOKENS * 64)])
def test_values_that_blocks_hand_to_later_ones_are_refused(op: Op) -> None:
    body = nx.DiGraph()
    add(body, "input", Input(elems=TOKENS * 64))
    add(body, "handed", op, ["input"])
    add(body, "linear", Gemm(m=TOKENS, n=64.0, k=64.0), ["handed"])
    with pytest.raises(GraphError, match="'handed' hands a value from one block to another"):
        trained_step(layer_of(body, 64.0, TOKENS), True)


def test_what_has_no_rule_is_told_in_a_sentence() -> None:
    with pytest.raises(GraphError, match="pooled entries of DeepSeek-V4's kind .*there is no gradient rule"):
        trained_step(forward_with_pools(), True)


def forward_with_pools() -> nx.DiGraph:
    """DeepSeek-V4: attention whose keys are its values."""
    phase = prefill(1.0, TOKENS, all_logits=True)
    return build(load_model("deepseek-v4-flash", check=False), phase, load_precision("bf16"))


def test_an_encoders_result_collects_the_gradients_of_all_layers() -> None:
    step = trained_step(forward_of("flan-t5-large"), True)
    body = step.nodes["layers_1_23.backward"]["op"].body
    assert "encoder_output.accumulated" in body
    assert "encoder.final_layer_norm.add_gradients" in step
    assert [name for name in step if name.endswith(".backward.encoder_output")]


def test_a_graph_without_a_repeat_has_a_backward_too() -> None:
    graph = nx.DiGraph()
    add(graph, "embed", Embedding(tokens=TOKENS, entries=100.0, width=64.0))
    add(graph, "linear", Gemm(m=TOKENS, n=100.0, k=64.0), ["embed"])
    add(graph, "loss", Loss(rows=TOKENS, vocab=100.0), ["linear"])
    step = trained_step(graph, True)
    assert list(step)[-1] == "embed.wgrad"
    assert not [op for _, op, _ in walk(step) if isinstance(op, Repeat)]
