"""What autograd keeps, against what torch kept (reference/training/saved_activations.csv) and by hand."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import Value, edge_elems, inputs_of
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import prefill
from graphsim.ops import (
    Activation,
    Add,
    AllReduce,
    Attention,
    CausalConv,
    Elementwise,
    Embedding,
    ExpertGemm,
    Gemm,
    LoraA,
    LoraB,
    Norm,
    Op,
    Permute,
    Repeat,
    Rope,
    Route,
    Scan,
)
from graphsim.ops.experts import ExpertActivation
from graphsim.ops.formats import FORMATS
from graphsim.ops.lora_experts import LoraDelta
from graphsim.ops.lora_variants import DoraNorm, DoraScale, VectorScale
from graphsim.ops.precision import load_precision

REFERENCE = Path(os.environ.get("GRAPHSIM_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
TABLE = REFERENCE / "training" / "saved_activations.csv"
needs_reference = pytest.mark.skipif(not TABLE.is_file(), reason="the reference measurements are not here")

S, H, F, R, HEADS = 256.0, 512.0, 1024.0, 8.0, 8.0
"""Tokens, widths, rank and heads of the table's single operations."""

BF16, FP32 = FORMATS["bf16"], FORMATS["fp32"]


@cache
def measured() -> list[dict[str, str]]:
    with TABLE.open() as file:
        return list(csv.DictReader(file))


def saved_bytes(case: str) -> int:
    row = next(row for row in measured() if row["case"] == case and row["shape"].endswith("single op"))
    return int(row["saved_bytes"])


def frozen(*ops: Op) -> float:
    return sum(float(op.saved.bytes) for op in ops)


def trained(*ops: Op) -> float:
    return frozen(*ops) + sum(float(op.saved_for_weights.bytes) for op in ops)


LINEAR = Gemm(m=S, n=F, k=H)
BIASED = Gemm(m=S, n=F, k=H, bias=True)
NORM = Norm(rows=S, width=H)


def factors(**fields: Any) -> tuple[LoraA, LoraB]:
    return LoraA(m=S, n=R, k=H, **fields), LoraB(m=S, n=F, k=R, **fields)


def dora(**fields: Any) -> tuple[Op, ...]:
    wide = {"factors": fields.get("weights", BF16)}
    return (
        *factors(**fields),
        DoraNorm(n=F, k=H, rank=R, **wide),
        DoraScale(m=S, n=F, rows=S, **wide),
    )


SINGLE: dict[str, Callable[[], float]] = {
    "linear W frozen": lambda: frozen(LINEAR),
    "linear W trainable": lambda: trained(LINEAR),
    "linear W frozen, bias trainable": lambda: frozen(BIASED),
    "HF LlamaRMSNorm weight trainable": lambda: trained(NORM),
    "HF LlamaRMSNorm weight frozen": lambda: frozen(NORM),
    "silu(g)*u": lambda: frozen(Activation(elems=S * F, reads=2.0, steps=4.0)),
    "sdpa causal, kv repeated to all heads": lambda: frozen(attention(HEADS)),
    "PEFT LoRA linear, adapters bf16": lambda: frozen(LINEAR) + trained(*factors()),
    "PEFT LoRA linear, adapters fp32 (default)": lambda: frozen(LINEAR) + trained(*factors(weights=FP32)),
    "PEFT LoRA linear with A frozen (LoRA-FA), adapters bf16": lambda: trained(
        LoraA(m=S, n=R, k=H, frozen=True), factors()[1]
    ),
    "PEFT DoRA linear, adapters bf16": lambda: frozen(LINEAR) + trained(*dora()),
    "PEFT DoRA linear, adapters fp32": lambda: frozen(LINEAR) + trained(*dora(weights=FP32)),
}


def attention(kv_heads: float) -> Attention:
    return Attention(
        sequences=1.0, query_tokens=S, kv_tokens=S, pairs=S * (S + 1) / 2, heads=HEADS, kv_heads=kv_heads,
        head_dim=H / HEADS, value_dim=H / HEADS,
    )  # fmt: skip


@needs_reference
@pytest.mark.parametrize("case", SINGLE)
def test_an_operation_keeps_what_torch_kept(case: str) -> None:
    assert SINGLE[case]() == saved_bytes(case)


@needs_reference
def test_vera_keeps_the_inputs_of_its_vectors_and_peft_the_slices_of_the_shared_factors() -> None:
    ops = [
        *factors(frozen=True, shared=True),
        VectorScale(elems=S * R, width=R),
        VectorScale(elems=S * F, width=F),
    ]
    slices = 2 * R * (H + F)  # PEFT cuts them out of larger matrices in every forward pass
    assert trained(*ops) + slices == saved_bytes("PEFT VeRA linear, bf16")


METHODS: dict[str, dict[str, Any] | None] = {
    "full fine-tuning bf16": None,
    "LoRA q,v, adapters bf16": {"target_modules": ["q_proj", "v_proj"]},
    "LoRA q,v, adapters fp32": {"target_modules": ["q_proj", "v_proj"], "lora_dtype": "fp32"},
    "LoRA attention, adapters bf16": {"target_modules": ["attn"]},
    "LoRA attention, adapters fp32": {"target_modules": ["attn"], "lora_dtype": "fp32"},
    "LoRA mlp, adapters bf16": {"target_modules": ["ffn"]},
    "LoRA mlp, adapters fp32": {"target_modules": ["ffn"], "lora_dtype": "fp32"},
    "LoRA all linear, adapters bf16": {"target_modules": ["attn", "ffn"]},
    "LoRA all linear, adapters fp32": {"target_modules": ["attn", "ffn"], "lora_dtype": "fp32"},
    "DoRA q,v, adapters bf16": {"target_modules": ["q_proj", "v_proj"], "variant": "dora"},
}
SHAPES = ((1792, 8, 2), (1408, 8, 8))
"""Width of the MLP, heads, heads of keys and values of the table's decoder layers."""


def layer(width: int, heads: int, kv_heads: int, lora: dict[str, Any] | None) -> nx.DiGraph:
    """One decoder layer of the table, with adapters of rank 8."""
    config = from_config(
        {
            "model_type": "llama", "hidden_size": 512, "intermediate_size": width, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "num_hidden_layers": 1, "vocab_size": 4096,
        },
        "tiny",
    )  # fmt: skip
    graph = build(config, prefill(1.0, S), load_precision("bf16"))
    graph = graph if lora is None else gs.inject(graph, gs.LoraConfig(rank=8, **lora))
    (body,) = [op.body for _, op in graph.nodes(data="op") if isinstance(op, Repeat)]
    return body  # type: ignore[no-any-return]


def kept_bytes(graph: nx.DiGraph, everything: bool) -> float:
    """What a graph keeps, a value once however many operations keep it; all weights are trained, or adapters only."""
    own, values = 0.0, dict[Value, float]()
    for name, op in graph.nodes(data="op"):
        kept = op.saved + op.saved_for_weights if everything or op.adapter else op.saved
        own += float(kept.own)
        if kept.result:
            values[Value(name)] = float(op.out_elems * op.activations.bytes)
        if kept.inputs:
            for value in inputs_of(graph, name):
                values[value] = float(edge_elems(graph, value.node, name) * op.activations.bytes)
    return own + sum(values.values())


@needs_reference
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_a_decoder_layer_keeps_what_torch_kept(method: str, shape: tuple[int, int, int]) -> None:
    lora = METHODS[method]
    (row,) = [row for row in measured() if row["case"] == method and f" f={shape[0]} " in row["shape"]]
    assert kept_bytes(layer(*shape, lora), everything=lora is None) == int(row["saved_bytes"])


def test_grouped_products_and_convolutions_keep_their_input_for_their_weights_only() -> None:
    experts = ExpertGemm(m=12.0, n=5.0, k=7.0, experts=4.0, of=4, chosen=2, tokens=6.0)
    assert frozen(experts) == 0 and trained(experts) == 2 * 12 * 7
    conv = CausalConv(sequences=1.0, tokens=9.0, channels=3.0, taps=4.0)
    assert frozen(conv) == 0 and trained(conv) == 2 * 9 * 3


def test_attention_keeps_queries_keys_values_result_and_one_number_for_each_query_and_head() -> None:
    kept = attention(2.0).saved
    assert kept.inputs == 2 * S * (H + 2 * H / 4)
    assert kept.result == 2 * S * H and kept.own == 4 * S * HEADS


def test_linear_operations_keep_nothing_and_scaling_by_a_number_is_linear() -> None:
    linear = (
        Add(elems=S), Rope(tokens=S, heads=2.0, kv_heads=1.0, head_dim=4.0), AllReduce(elems=S, group=2.0),
        Elementwise(elems=S), Embedding(tokens=S, entries=10.0, width=4.0),
    )  # fmt: skip
    assert frozen(*linear) == 0


def test_an_activation_keeps_its_inputs_and_its_result_where_a_product_follows() -> None:
    assert frozen(Activation(elems=S, reads=1.0, steps=8.0)) == 2 * S
    assert frozen(Activation(elems=S, reads=2.0, steps=1.0)) == 2 * 2 * S  # a product alone
    assert frozen(ExpertActivation(elems=S, reads=2.0)) == 3 * 2 * S
    assert Activation(elems=S, reads=2.0, steps=4.0).saved.own == 2 * S


def test_routing_keeps_probabilities_and_choices_and_weighted_sums_keep_the_experts_rows() -> None:
    assert frozen(Route(tokens=6.0, experts=8.0, chosen=2.0)) == 6 * 8 * 4 + 6 * 2 * (8 + 4)
    there, back = (Permute(tokens=6.0, width=10.0, chosen=2.0, gather=gather) for gather in (True, False))
    assert frozen(there) == 8 * 12 and frozen(back) == 2 * 12 * 10


def test_a_scan_keeps_its_inputs_and_no_states() -> None:
    few, many = (Scan(sequences=1.0, tokens=9.0, channels=4.0, state=s, inputs=11.0) for s in (16.0, 128.0))
    assert frozen(few) == frozen(many) == 2 * 9 * 11


def test_weights_that_are_made_again_in_every_forward_pass_are_kept() -> None:
    delta = LoraDelta(n=6.0, k=4.0, rank=2.0, copies=3.0)
    assert delta.saved.result == 2 * 3 * 6 * 4


@pytest.mark.parametrize("width", [2.0, 4.0])
def test_a_norm_keeps_fp32_values_and_its_weight_the_normalised_ones(width: float) -> None:
    norm = Norm(rows=6.0, width=width)
    assert frozen(norm) == 4 * 6 * width + 4 * 6
    assert trained(norm) - frozen(norm) == 2 * 6 * width
    assert trained(Norm(rows=6.0, width=width, vectors=0.0)) == frozen(norm)
