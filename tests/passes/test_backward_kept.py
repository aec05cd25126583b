"""What autograd keeps is what hooks on PyTorch's saved tensors counted, to the byte."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from graphsim.graph import add
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject
from graphsim.ops import Activation, Attention, Gemm, Input, KeptValue, Norm, Sharding
from graphsim.ops.adapter_weights import HeldWeights
from graphsim.ops.direction import Direction
from tests.passes.autograd import body_of, flops, kept_in, layer_of, step_of, trained_step
from tests.paths import ROOT

TABLE = ROOT.parent / "shared" / "reference" / "training" / "saved_activations.csv"
T, H, F, R = 256.0, 512.0, 1024.0, 8

LINEAR: dict[str, dict[str, Any]] = {
    "linear W frozen": {},
    "linear W trainable": {"full": True},
    "linear W frozen, bias trainable": {"bias": True},
    "PEFT LoRA linear, adapters bf16": {"lora": {}},
    "PEFT LoRA linear, adapters bf16, dropout 0.1": {"lora": {}, "lora_dropout": 0.1, "mask_bytes": 2.0},
    "PEFT LoRA linear, adapters fp32 (default)": {"lora": {}, "adapter_format": "fp32"},
    "PEFT LoRA linear, adapters fp32, dropout 0.1": {
        "lora": {}, "adapter_format": "fp32", "lora_dropout": 0.1, "mask_bytes": 4.0,
    },
    "PEFT DoRA linear, adapters bf16": {"lora": {"variant": "dora"}},
    "PEFT DoRA linear, adapters fp32": {"lora": {"variant": "dora"}, "adapter_format": "fp32"},
    "PEFT LoRA linear, adapters fp32, under autocast bf16": {"lora": {}, "adapter_format": "fp32", "autocast": True},
    "PEFT LoRA linear, adapters fp32, dropout 0.1, under autocast bf16": {
        "lora": {}, "adapter_format": "fp32", "autocast": True, "lora_dropout": 0.1, "mask_bytes": 4.0,
    },
    "PEFT LoRA linear with A frozen (LoRA-FA), adapters bf16": {"lora": {}, "freeze_a": True},
    "PEFT VeRA linear, bf16": {"lora": {"variant": "vera"}},
    "PEFT IA3 linear (output scaled), bf16": {"lora": {"variant": "ia3"}},
    "PEFT LoRA linear bf16, input needs no grad (first layer)": {"lora": {}, "input_requires_grad": False},
}  # fmt: skip


def linear_step(full: bool = False, bias: bool = False, lora: dict[str, Any] | None = None, **rules: Any) -> nx.DiGraph:
    linear = Gemm(m=T, n=F, k=H, split=Sharding.COLUMN, bias=bias, module="model.layers.{}.self_attn.q_proj")
    body = body_of(H, T, q_proj=linear)
    if bias:
        body = nx.DiGraph()
        add(body, "input", Input(elems=T * H))
        add(body, "q_proj.lora_biases", HeldWeights(elems=F, stored_bytes=0.0))
        add(body, "q_proj", linear, ["input", "q_proj.lora_biases"])
    graph = layer_of(body, H, T)
    if lora is not None:
        given = {"rank": R, "target_modules": ["q_proj"]} | (lora or {})
        graph = inject(graph, LoraConfig(**given))
    return trained_step(graph, full, **{"input_requires_grad": True, "embeddings": False} | rules)


def model(f: int, kv: int) -> dict[str, Any]:
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 512, "intermediate_size": f,
        "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": kv, "vocab_size": 4096,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    }  # fmt: skip


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
FP32 = {"adapter_format": "fp32"}
LAYERS: dict[str, tuple[list[str], str, dict[str, Any]]] = {
    "full fine-tuning bf16": ([], "", {}),
    "full fine-tuning + HF gradient checkpointing": ([], "", {"recompute": "full"}),
    "LoRA q,v, adapters bf16": (["q_proj", "v_proj"], "lora", {}),
    "LoRA q,v, adapters fp32": (["q_proj", "v_proj"], "lora", FP32),
    "LoRA attention, adapters bf16": (ATTENTION, "lora", {}),
    "LoRA attention, adapters fp32": (ATTENTION, "lora", FP32),
    "LoRA mlp, adapters bf16": (MLP, "lora", {}),
    "LoRA mlp, adapters fp32": (MLP, "lora", FP32),
    "LoRA all linear, adapters bf16": (ATTENTION + MLP, "lora", {}),
    "LoRA all linear, adapters fp32": (ATTENTION + MLP, "lora", FP32),
    "DoRA q,v, adapters bf16": (["q_proj", "v_proj"], "dora", {}),
    "LoRA all linear bf16 + HF gradient checkpointing": (ATTENTION + MLP, "lora", {"recompute": "full"}),
}


def layer_kept(case: str, f: int, kv: int) -> float:
    """Of a middle layer, in bytes."""
    targets, variant, rules = LAYERS[case]
    lora = LoraConfig(rank=R, target_modules=targets, variant=variant) if targets else None
    step = step_of(model(f, kv), lora, T, **rules)
    middle = next(name for name in step if name.endswith("_2.backward") or name.endswith("layers_0_2.backward"))
    return sum(kept_in(step, middle).values())


def single(case: str) -> float:
    if case in LINEAR:
        return sum(kept_in(linear_step(**LINEAR[case]), "layer.backward").values()) if _has(case) else 0.0
    norm = Norm(rows=T, width=H)
    ops: dict[str, Any] = {
        "HF LlamaRMSNorm weight trainable": (norm, H, True),
        "HF LlamaRMSNorm weight frozen": (norm, H, False),
    }
    op, width, full = ops[case]
    step = trained_step(layer_of(body_of(width, T, op=op), width, T), full, embeddings=False, input_requires_grad=True)
    return sum(kept_in(step, "layer.backward").values())


def _has(case: str) -> bool:
    return "layer.backward" in linear_step(**LINEAR[case])


def gated() -> float:
    body = body_of(H, T, gate=Gemm(m=T, n=F, k=H), up=Gemm(m=T, n=F, k=F))
    body.remove_edge("gate", "up")
    body.nodes["up"]["op"] = Gemm(m=T, n=F, k=H)
    body.add_edge("input", "up", parts=())
    body.add_node("act", op=Activation(elems=T * F, reads=2.0, steps=4.0))
    body.add_edge("gate", "act", parts=())
    body.add_edge("up", "act", parts=())
    step = trained_step(layer_of(body, H, T), False, input_requires_grad=True)
    return sum(kept_in(step, "layer.backward").values())


def attended() -> float:
    body = body_of(H, T)
    for name in ("q", "k", "v"):
        body.add_node(name, op=Gemm(m=T, n=H, k=H))
        body.add_edge("input", name, parts=())
    attention = Attention(
        sequences=1, query_tokens=T, kv_tokens=T, pairs=T * (T + 1) / 2, heads=8, kv_heads=8, head_dim=64, value_dim=64
    )
    body.add_node("attention", op=attention)
    for name in ("q", "k", "v"):
        body.add_edge(name, "attention", parts=())
    step = trained_step(layer_of(body, H, T), False, input_requires_grad=True)
    return sum(kept_in(step, "layer.backward").values())


def lost(logit_bytes: float) -> float:
    linear = Gemm(m=T, n=4096.0, k=H)
    step = trained_step(
        layer_of(body_of(H, T, linear=linear), H, T), False, input_requires_grad=True, logit_bytes=logit_bytes
    )
    return sum(kept_in(step).values())


def row_bytes(case: str, shape: str) -> float:
    """What the graph keeps for a row of the table."""
    if "one Llama decoder layer" in shape:
        return layer_kept(case, *((1792, 2) if "kv=2" in shape else (1408, 8)))
    if case.startswith("silu"):
        return gated()
    if case.startswith("sdpa"):
        return attended()
    if case.startswith("cross_entropy"):
        return lost(4.0 if "float" in case else 2.0)
    return single(case)


def rows() -> list[dict[str, str]]:
    if not TABLE.is_file():
        return []
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


KEPT = [row for row in rows() if row["saved_bytes"]]
FLOPS: dict[str, dict[str, Any]] = {
    "FLOPs: linear frozen, X grad": {},
    "FLOPs: linear trainable, X grad": {"full": True},
    "FLOPs: linear trainable, X no grad": {"full": True, "input_requires_grad": False},
    "FLOPs: LoRA bf16, X grad": {"lora": {}},
    "FLOPs: LoRA bf16, X no grad": {"lora": {}, "input_requires_grad": False},
    "FLOPs: LoRA-FA, X grad": {"lora": {}, "freeze_a": True},
    "FLOPs: DoRA bf16, X grad": {"lora": {"variant": "dora"}},
    "FLOPs: DoRA bf16 dropout, X grad": {"lora": {"variant": "dora"}, "lora_dropout": 0.1},
}


@pytest.mark.skipif(not Path(TABLE).is_file(), reason="the table of measurements is not here")
@pytest.mark.parametrize("row", KEPT, ids=lambda row: row["id"])
def test_kept_bytes_are_those_that_hooks_counted(row: dict[str, str]) -> None:
    assert row_bytes(row["case"], row["shape"]) == float(row["saved_bytes"])


@pytest.mark.skipif(not Path(TABLE).is_file(), reason="the table of measurements is not here")
@pytest.mark.parametrize("row", [row for row in rows() if row["case"] in FLOPS], ids=lambda row: row["id"])
def test_flops_are_those_that_pytorch_counted(row: dict[str, str]) -> None:
    step, base = linear_step(**FLOPS[row["case"]]), 2.0 * T * H * F
    forward, back = (part.split()[-1] for part in row["in_units"].split("; ")[:2])
    assert flops(step, Direction.FORWARD) / base == pytest.approx(float(forward), abs=6e-6)
    assert flops(step, Direction.BACKWARD) / base == pytest.approx(float(back), abs=6e-6)


@pytest.mark.parametrize(("lora", "packed"), [({"variant": "dora"}, H * H + H * R), ({"variant": "vera"}, R * (H + F))])
def test_what_hooks_see_and_nobody_holds_takes_no_memory(lora: dict[str, Any], packed: float) -> None:
    """The identity behind DoRA's detached norm is freed at once; VeRA's slices are the shared factors themselves."""
    body = linear_step(lora=lora).nodes["layer.backward"]["op"].body
    kept = [op for _, op in body.nodes(data="op") if isinstance(op, KeptValue)]
    assert sum(op.kept_bytes - op.memory_bytes for op in kept) == 2 * packed
