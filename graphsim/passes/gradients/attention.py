"""The gradient of attention."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from graphsim.errors import GraphError
from graphsim.graph import Value
from graphsim.ops import (
    Attention,
    AttentionBackward,
    Embedding,
    IndexScores,
    MlaAttention,
    OutsideValue,
    Rope,
    SparseAttention,
)
from graphsim.ops.gradients.attention import KeysAndValues, MlaAttentionBackward
from graphsim.passes.gradients.forward_node import ForwardNode
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import FP32, OpInput, scaled
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


@gradients.register
def _attention(op: Attention, here: ForwardNode) -> None:
    """One kernel yields all three gradients, whichever are needed."""
    need = here.need
    if not may_be_nonzero(need):
        return
    if isinstance(op, SparseAttention) and op.method.startswith("dsa"):
        _latent_attention(op, here)
        return
    if isinstance(op, SparseAttention) and op.method in ("csa", "hca", "window"):
        raise GraphError(
            f"node '{here.name}' attends to a window and to pooled entries of DeepSeek-V4's kind (`{op.method}`), for "
            "which there is no gradient rule; training of this model cannot be simulated"
        )
    kept = [*here.keep_inputs(need), *_kept(op, here, need)]
    if any(type(taken.op) is OutsideValue for taken in here.flowing):
        raise GraphError(
            f"node '{here.name}' attends to keys or values of an earlier layer, for which there is no gradient rule; "
            "training of this model cannot be simulated"
        )
    added = any(isinstance(taken.op, Embedding) for taken in here.flowing)
    back = AttentionBackward(**_same(op, here, need) | {"biases": scaled(op.biases, need) if added else 0.0})
    given = here.emit("backward", back, [*here.dy, *kept]).node
    parts = ("q", "k", "v", "biases") if added else ("q", "k", "v")
    here.deal([(Value(given, (part,)), op_sizes(op, added)[part]) for part in parts])


def op_sizes(op: Attention, added: bool) -> dict[str, Num]:
    """Elements of queries, keys, values, and of what is added to the scores."""
    keys = op.kv_tokens * op.kv_heads
    return {
        "q": op.query_tokens * op.heads * op.head_dim, "k": keys * op.head_dim, "v": keys * op.value_dim,
        "biases": op.biases if added else 0.0,
    }  # fmt: skip


@gradients.register(MlaAttention)
def _latent_attention(op: Attention, here: ForwardNode) -> None:
    """Queries and keys are assembled before the kernel, which saves them; training has no cache.

    transformers 5, `models/deepseek_v3/modeling_deepseek_v3.py`; derived, not measured.
    """
    need = here.need
    if not may_be_nonzero(need):
        return
    if isinstance(op, MlaAttention) and op.absorbed:
        raise GraphError(f"node '{here.name}' attends to latent vectors, a form that is used in inference only")
    flowing = [each for each in here.flowing if not isinstance(each.op, KeysAndValues | IndexScores)]
    taken = [(each, _latent_parts(each)) for each in flowing]
    made = next(each for each, parts in taken if "v" in parts)
    queries, keys = op.query_tokens * op.heads, op.kv_tokens * op.heads
    kept = [
        here.keep_own("queries", queries * op.head_dim, need),
        here.keep_own("keys", keys * op.head_dim, need),
        *here.keep_input(made, need),
        *_kept(op, here, need),
    ]
    plain = made.elems / np.maximum(keys, 1.0) - op.value_dim
    back = MlaAttentionBackward(**_same(op, here, need) | {"plain": plain})
    given = here.emit("backward", back, [*here.dy, *kept]).node
    for each, parts in taken:
        here.give(each, [Value(given, parts)])


def _latent_parts(taken: OpInput) -> tuple[str, ...]:
    """The gradients that belong to an input: of queries, of rotated parts, or of the values expanded from latents."""
    if isinstance(taken.op, Rope):
        return ("q_rotated", "k_rotated")
    named = {"q_nope": "q_plain", "q_rope": "q_rotated", "rope": "k_rotated"}
    return tuple(named[part] for part in taken.value.parts if part in named) or ("k_plain", "v")


def _kept(op: Attention, here: ForwardNode, need: Num) -> list[Value]:
    """The result and its normaliser, or the scores; in addition to queries, keys and values."""
    rules = here.rules
    if rules.attention == "flash":
        statistics = here.keep_own("lse", op.query_tokens * op.heads, need, form=FP32)
        return [here.keep_own("", op.out_elems, need), statistics]
    scores = op.heads * op.query_tokens * op.kv_tokens / op.sequences
    kept = [here.keep_own("softmax", scores, need)]
    if rules.attention_dropout:
        kept.append(here.keep_own("mask", scores, need, each=rules.mask_bytes))
        kept.append(here.keep_own("dropped", scores, need))
    return kept


def _same(op: Attention, here: ForwardNode, need: Num) -> dict[str, Any]:
    """The sizes of the attention, for the needed gradients."""
    same = {f.name: getattr(op, f.name) for f in fields(Attention)}
    live = {name: scaled(same[name], need) for name in ("query_tokens", "kv_tokens", "pairs")}
    return same | live | {"sinks": 0.0, "recomputes": here.rules.attention == "flash"}
