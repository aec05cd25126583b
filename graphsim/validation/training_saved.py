"""Bytes that autograd saves and flops that it counts, measured with hooks on small cases, compared with the backward
pass.

A case is one operation, PEFT's linear or a decoder layer; the graph of each is built here and handed to
`graphsim.passes.backward`, whose kept values and GEMMs are summed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx

from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import Row
from graphsim.graph import Value, add, walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject
from graphsim.models.build import build
from graphsim.models.loading import load_model
from graphsim.models.phase import prefill
from graphsim.ops import Activation, Attention, Embedding, Gemm, KeptValue, Loss, Norm, Op, Repeat
from graphsim.ops.base import OpType
from graphsim.ops.precision import load_precision
from graphsim.passes.backward import backward
from graphsim.passes.backward_rules import BackwardRules
from graphsim.passes.trained import mark_trained
from graphsim.validation.judged import judged_line

COLUMNS = ("case", "shape", "saved_bytes", "unit")
"""Columns that identify the layout."""
VOCABULARY = 4096
"""Vocabulary size of the cross-entropy cases; a layer's case does not depend on it."""
LAYERS = 4
"""Number of layers of the model; the examined layer is not the first, so that its input requires a gradient."""
TARGETS: Mapping[str, str | tuple[str, ...]] = {
    "q,v": ("q_proj", "v_proj"), "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"), "all linear": "all-linear",
}  # fmt: skip
LINEAR = "model.layers.{}.self_attn.q_proj"
_FACTOR = re.compile(r"(forward|backward) ([\d.]+)")


def saved_lines(row: Row) -> Iterator[dict[str, Any]]:
    """The row's bytes and the estimate's, or its flops of each direction in units of the base's forward."""
    case, unit = str(row["case"]), str(row["unit"])
    told = _FACTOR.findall(f"{row.get('tensors', '')} {row.get('in_units', '')} {unit} {row['saved_bytes']}")
    measured: Mapping[str, Any] = {name: float(value) for name, value in told} or {"saved_bytes": row["saved_bytes"]}
    found, problem = dict[str, float](), ""
    try:
        found = _flops(case, Sizes.read(row)) if told else {"saved_bytes": _saved(case, Sizes.read(row))}
    except GraphsimError as error:
        problem = str(error)
    for metric, value in measured.items():
        line = judged_line(row["id"], metric, value, found.get(metric, float("nan")), problem)
        yield line | {"quantity": "memory" if metric == "saved_bytes" else "flops", "case": case}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of a case: tokens, hidden size, MLP width, rank; for a layer also heads, key heads and its own width."""

    tokens: int
    hidden: int
    inner: int
    rank: int
    heads: int = 8
    kv_heads: int = 8
    layer: bool = False

    @classmethod
    def read(cls, row: Row) -> Sizes:
        """Sizes from `shape`. Raises ConfigError if one is missing."""
        text = str(row["shape"])
        first, _, layer = text.partition(";")
        found = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", first)}
        own = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", layer)}
        try:
            is_layer = "decoder layer" in layer
            return cls(
                tokens=found["b"] * found["s"], hidden=own.get("h", found["h"]), inner=own.get("f", found["f"]),
                rank=found["r"], heads=own.get("heads", 8), kv_heads=own.get("kv", own.get("heads", 8)), layer=is_layer,
            )  # fmt: skip
        except KeyError as error:
            raise ConfigError(f"shape = {text!r} does not give {error}") from None


def _saved(case: str, sizes: Sizes) -> float:
    if sizes.layer:
        return _layer_bytes(case, sizes)
    graph, rules = _alone(case, sizes)
    out = backward(graph, rules)
    counted = "cross_entropy" in case
    total = 0.0
    for _, op in out.nodes(data="op"):
        if isinstance(op, KeptValue) and (op.of == "loss" or op.of == "lm_head") == counted and op.what != "ids":
            total += float(op.kept_bytes)
    return total + (rules.logit_bytes if counted else 0.0)  # the sum of the targets' weights, one number


def _layer_bytes(case: str, sizes: Sizes) -> float:
    rules = _rules(case, sizes, recompute="full" if "checkpointing" in case else "none")
    model = load_model({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": sizes.hidden,
        "num_hidden_layers": LAYERS, "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads,
        "intermediate_size": sizes.inner, "vocab_size": VOCABULARY, "max_position_embeddings": 2048,
    })  # fmt: skip
    graph = build(model, prefill(1.0, float(sizes.tokens), all_logits=True), load_precision("bf16"))
    full = case.startswith("full")
    if not full:
        graph = inject(graph, _adapter(case, sizes))
    out = backward(mark_trained(graph, base=full, adapters=True), rules)
    turns = [op for name, op in out.nodes(data="op") if isinstance(op, Repeat) and name.endswith(".backward")]
    body = max(turns, key=lambda op: float(op.times)).body
    return sum(float(op.kept_bytes) for _, op in body.nodes(data="op") if isinstance(op, KeptValue) and not op.again)


def _adapter(case: str, sizes: Sizes) -> LoraConfig:
    plain = case.lower()
    variant = next((name for name in ("dora", "vera", "ia3") if name in plain), "lora")
    targets: str | tuple[str, ...] = next(
        (found for word, found in TARGETS.items() if f" {word}" in plain), ("q_proj",)
    )
    return LoraConfig(rank=sizes.rank, target_modules=targets, variant=variant, lora_dtype=_format(case))


def _format(case: str) -> str:
    return "fp32" if "fp32" in case else "bf16"


def _rules(case: str, sizes: Sizes, recompute: str = "none") -> BackwardRules:
    """Rules of eager code on a CPU, where a dropout mask has the format of its input."""
    dropped = re.search(r"dropout ([\d.]+)", case)
    given = re.search(r"dropout(?! )", case)
    return BackwardRules(
        adapter_format=_format(case), autocast="autocast" in case, recompute=recompute,
        lora_dropout=float(dropped[1]) if dropped else 0.1 if given else 0.0,
        mask_bytes=4.0 if _format(case) == "fp32" else 2.0, logit_bytes=2.0 if "bf16 logits" in case else 4.0,
    )  # fmt: skip


def _alone(case: str, sizes: Sizes) -> tuple[nx.DiGraph, BackwardRules]:
    """One operation between an embedding, which gives its input a gradient or none, and a head and a loss."""
    graph, t, h, plain = nx.DiGraph(), float(sizes.tokens), sizes.hidden, case.lower()
    needs = not re.search(r"input needs no grad|x no grad", plain)
    add(graph, "embed", Embedding(tokens=t, entries=VOCABULARY, width=h, trained=1.0 if needs else 0.0))
    last, width = "embed", h
    for name, op, inputs in _middle(case, sizes):
        last = add(graph, name, op, inputs or [last])
        width = int(op.out_elems / t)
    head = Gemm(m=t, n=VOCABULARY, k=width, module="lm_head", linear=False, head=True)
    add(graph, "lm_head", head, [last])
    add(graph, "loss", Loss(role="loss", rows=t, vocab=VOCABULARY), ["lm_head"])
    if "peft" in plain or re.search(r"lora|dora|vera", plain):
        graph = inject(graph, _adapter(case, sizes))
        graph = _mark_adapters(graph, frozen_a="lora-fa" in plain)
    return graph, _rules(case, sizes)


def _mark_adapters(graph: nx.DiGraph, frozen_a: bool) -> nx.DiGraph:
    """The graph with its adapter marked as trained; other nodes keep their marks."""
    kept = {name: op.trained for name, op in graph.nodes(data="op")}
    marked = mark_trained(graph, base=False, adapters=True, freeze_a=frozen_a)
    for name, trained in kept.items():
        op = marked.nodes[name]["op"]
        if not op.adapter and trained:
            marked.nodes[name]["op"] = replace(op, trained=trained)
    return marked


def _middle(case: str, sizes: Sizes) -> Iterator[tuple[str, Op, list[Value]]]:
    """The operation itself, as nodes with their inputs; no inputs stand for the preceding node."""
    t, h, f, plain = float(sizes.tokens), sizes.hidden, sizes.inner, case.lower()
    if plain.startswith("cross_entropy"):
        return
    if "norm" in plain:
        yield "norm", Norm(rows=t, width=h, trained=1.0 if "trainable" in plain else 0.0), []
    elif "silu" in plain:
        yield "up", Gemm(m=t, n=2 * f, k=h), []
        yield "act", Activation(elems=t * f, reads=2.0, steps=5.0), []
    elif plain.startswith("sdpa"):
        yield "qkv", Gemm(m=t, n=3 * h, k=h), []
        yield "attention", _attention(t, h), []
    else:
        trained = 1.0 if "w trainable" in plain or "linear trainable" in plain else 0.0
        yield "q_proj", Gemm(m=t, n=f, k=h, module=LINEAR, tags=("attn",), linear=True, trained=trained), []


def _attention(t: float, h: int) -> Attention:
    heads = 8
    return Attention(
        query_tokens=t, kv_tokens=t, pairs=t * (t + 1) / 2, sequences=1.0, heads=heads, kv_heads=heads,
        head_dim=h // heads, value_dim=h // heads,
    )  # fmt: skip


def _flops(case: str, sizes: Sizes) -> dict[str, float]:
    """Flops of matrix units, relative to the base GEMM's forward pass, without the head."""
    graph, rules = _alone(case, sizes)
    base = 2.0 * sizes.tokens * sizes.hidden * sizes.inner
    out = backward(graph, rules)
    counted = dict.fromkeys(("forward", "backward"), 0.0)
    for name, op, times in walk(out):
        if not name.startswith("lm_head") and op.op_type is not OpType.ADD:
            counted[op.direction.name.lower()] += times * float(op.work().flops)
    return {name: flops / base for name, flops in counted.items()}
