"""Models written wholly in blocks: the embedding, the layers, the output head."""

from __future__ import annotations

from typing import Any

import yaml

STEM = """
  embeddings:
    - {name: embed_tokens, op: embedding, entries: vocab_size, module: model.embed_tokens}
"""

HEAD = """
  logits:
    - {name: norm, op: norm, module: model.norm}
    - {name: last_tokens, op: take_rows}
    - {name: lm_head, op: gemm, n: vocab_size, k: hidden_size, split: column, head: true, shared: TIED}
"""

ATTENTION = """
    - {name: input_layernorm, op: norm}
    - {name: q_proj, op: gemm, inputs: input_layernorm, n: q_width, k: hidden_size, split: column, units: heads,
       pack: qkv_proj, module: self_attn.q_proj, targets: [attn, qkv, query]}
    - {name: k_proj, op: gemm, inputs: input_layernorm, n: kv_width, k: hidden_size, split: column, units: kv_heads,
       pack: qkv_proj, module: self_attn.k_proj, targets: [attn, qkv, key]}
    - {name: v_proj, op: gemm, inputs: input_layernorm, n: kv_width, k: hidden_size, split: column, units: kv_heads,
       pack: qkv_proj, module: self_attn.v_proj, targets: [attn, qkv, value]}
    - {name: rope, op: rope, inputs: [q_proj, k_proj], heads: heads, kv_heads: kv_heads, head_dim: head_dim}
    - {name: attention, op: attention, inputs: [rope.q, rope.k, v_proj], heads: heads, kv_heads: kv_heads,
       head_dim: head_dim}
    - {name: o_proj, op: gemm, n: hidden_size, k: q_width, split: row, units: heads,
       module: self_attn.o_proj, targets: [attn, out proj]}
    - {name: attn_residual, op: add, inputs: [o_proj, input]}
    - {name: post_attention_layernorm, op: norm}
"""

MLP = """
    - {name: gate_proj, op: gemm, inputs: post_attention_layernorm, n: inner, k: hidden_size,
       split: column, pack: gate_up_proj, module: mlp.gate_proj, targets: [ffn, gate, up+gate, w1]}
    - {name: up_proj, op: gemm, inputs: post_attention_layernorm, n: inner, k: hidden_size,
       split: column, pack: gate_up_proj, module: mlp.up_proj, targets: [ffn, up, up+gate, w3]}
    - {name: act_mul, op: activation, inputs: [gate_proj, up_proj]}
    - {name: down_proj, op: gemm, n: hidden_size, k: inner, split: row,
       module: mlp.down_proj, targets: [ffn, down, w2]}
    - {name: mlp_residual, op: add, inputs: [down_proj, attn_residual]}
"""

EXPERTS = """
    - {name: gate, op: gemm, n: experts, k: hidden_size, module: mlp.gate, quantised: false, bare: true}
    - {name: route, op: route, experts: experts, chosen: chosen}
    - {name: gather_tokens, op: gather_tokens, inputs: [post_attention_layernorm, route], chosen: chosen}
    - {name: expert_gate_up_proj, op: expert_gemm, n: 2 * inner, k: hidden_size, experts: experts, chosen: chosen,
       split: column, module: mlp.experts.gate_up_proj, targets: [ffn, up+gate], all_linear: true, rank_factor: 2,
       fuses: [w1, w3]}
    - {name: expert_act, op: expert_activation, width: inner, chosen: chosen}
    - {name: expert_down_proj, op: expert_gemm, n: hidden_size, k: inner, experts: experts, chosen: chosen,
       split: row, module: mlp.experts.down_proj, targets: [ffn, down], all_linear: true, fuses: [w2]}
    - {name: combine_tokens, op: combine_tokens, chosen: chosen}
    - {name: mlp_residual, op: add, inputs: [combine_tokens, attn_residual]}
"""


def model(layer: str, *, layers: int, fields: str, tied: bool = False, **keys: object) -> dict[str, Any]:
    """The document of a model of equal layers. fields: of its own, beside heads, kv_heads and head_dim"""
    head = HEAD.replace("TIED", str(tied).lower())
    text = f"""
stem: embeddings
head: logits
attention: {{heads: {keys.pop("heads")}, kv_heads: {keys.pop("kv_heads")}, head_dim: {keys.pop("head_dim")}}}
fields: {{q_width: heads * head_dim, kv_width: kv_heads * head_dim, {fields}}}
layers: [{{repeat: {layers}, block: decoder}}]
blocks:
  decoder:{layer}{STEM}{head}
"""
    return {**yaml.safe_load(text), **keys}


LLAMA = model(
    ATTENTION + MLP, name="llama", layers=16, fields="inner: 8192", tied=True, hidden_size=2048, vocab_size=128256,
    max_positions=131072, heads=32, kv_heads=8, head_dim=64,
)  # fmt: skip
"""The catalog's llama-3.2-1b."""

MIXTRAL = model(
    ATTENTION + EXPERTS, name="mixtral", layers=32, fields="inner: 14336, experts: 8, chosen: 2", hidden_size=4096,
    vocab_size=32000, max_positions=32768, heads=32, kv_heads=8, head_dim=128,
)  # fmt: skip
"""The catalog's mixtral-8x7b."""

WRITTEN = {"llama-3.2-1b": LLAMA, "mixtral-8x7b": MIXTRAL}
"""By name of the catalog's model that each is."""
