"""A model whose blocks use every kind of node, each layer for one subject; hidden size 64, 8 heads of 8."""

from __future__ import annotations

from typing import Any

import yaml

LAYERS = {
    "attending": """
    - {name: norm, op: norm, kind: layer_no_bias, module: input_layernorm}
    - {name: qkv, op: gemm, k: hidden_size, split: column, targets: [attn, qkv], module: self_attn.qkv_proj,
       parts: {q: {width: 64, units: heads}, k: {width: 16, units: kv_heads}, v: {width: 16, units: kv_heads}}}
    - {name: q_norm, op: norm, inputs: qkv.q, width: head_dim, weights: heads * head_dim, own: true, local: true,
       units: heads, module: self_attn.q_norm}
    - {name: angles, op: value, elems: tokens * head_dim}
    - {name: q_turned, op: elementwise, inputs: [q_norm, angles], steps: 3, unchecked: true}
    - {name: k_turned, op: elementwise, inputs: [qkv.k, angles], reads: 2 * tokens * 16, steps: 3, unchecked: true}
    - {name: attend, op: attention, inputs: [q_turned, k_turned, qkv.v], heads: heads, kv_heads: kv_heads,
       head_dim: head_dim, window: 16, sinks: true, soft_cap: true}
    - {name: o_proj, op: gemm, n: hidden_size, k: 64, split: row, units: heads, targets: [attn, out proj],
       module: self_attn.o_proj}
    - {name: scaled, op: elementwise, learned: hidden_size}
    - {name: sum, op: add, inputs: [scaled, input]}
""",
    "biased": """
    - {name: q, op: gemm, n: 64, k: hidden_size, split: column, units: heads, module: q_proj, targets: [attn]}
    - {name: k, op: gemm, inputs: input, n: 16, k: hidden_size, split: column, units: 2, module: k_proj}
    - {name: v, op: gemm, inputs: input, n: 16, k: hidden_size, split: column, units: 2, module: v_proj}
    - {name: table, op: embedding, entries: 32, width: heads, tokens: new_tokens * context_tokens, whole: true,
       module: relative_attention_bias}
    - {name: attend, op: attention, inputs: [q, k, v, table], heads: heads, kv_heads: kv_heads, head_dim: head_dim,
       biased: true}
    - {name: o, op: gemm, n: hidden_size, k: 64, split: row, units: heads, module: o_proj, targets: [attn]}
    - {name: sum, op: add, inputs: [o, input]}
""",
    "latent": """
    - {name: q, op: gemm, n: heads * 12, k: hidden_size, split: column, units: heads, module: q_proj}
    - {name: kv_a, op: gemm, inputs: input, n: 20, k: hidden_size, module: kv_a_proj}
    - {name: cache, op: kv_cache, kv_heads: 1, width: 20}
    - {name: latent, op: part, elems: kv_tokens * 16}
    - {name: kv_b, op: gemm, n: heads * 16, k: 16, m: kv_tokens, split: column, units: heads, module: kv_b_proj}
    - {name: attend, op: attention, inputs: [q, kv_b], kept: true, heads: heads, head_dim: 12, value_dim: head_dim}
    - {name: o, op: gemm, n: hidden_size, k: 64, split: row, units: heads, module: o_proj}
    - {name: sum, op: add, inputs: [o, input]}
""",
    "sharing": """
    - {name: q, op: gemm, n: 64, k: hidden_size, split: column, units: heads, module: q_proj}
    - {name: rope, op: rope, heads: heads, head_dim: head_dim}
    - {name: attend, op: attention, shares_kv: true, inputs: rope.q, heads: heads, kv_heads: kv_heads,
       head_dim: head_dim}
    - {name: o, op: gemm, n: hidden_size, k: 64, split: row, units: heads, module: o_proj, shared: true}
    - {name: sum, op: add, inputs: [o, input]}
""",
    "crossing": """
    - {name: q, op: gemm, n: 64, k: hidden_size, split: column, units: heads, module: q_proj}
    - {name: source, op: value, elems: encoded_rows * 48}
    - {name: k, op: gemm, inputs: source, n: 16, k: 48, m: encoded_rows, split: column, units: 2, module: k_proj}
    - {name: v, op: gemm, inputs: source, n: 16, k: 48, m: encoded_rows, split: column, units: 2, module: v_proj}
    - {name: attend, op: attention, inputs: [q, k, v], cross: true, heads: heads, kv_heads: 2, head_dim: head_dim}
    - {name: o, op: gemm, n: hidden_size, k: 64, split: row, units: heads, module: o_proj}
    - {name: sum, op: add, inputs: [o, input]}
""",
    "seeing": """
    - {name: qkv, op: gemm, k: hidden_size, parts: {q: 64, k: 64, v: 64}, module: ""}
    - {name: around, op: attention, inputs: [qkv.q, qkv.k, qkv.v], cached: false, heads: heads, head_dim: head_dim}
    - {name: behind, op: attention, inputs: [around, qkv.k, qkv.v], cached: false, causal: true, window: 3,
       heads: heads, head_dim: head_dim}
    - {name: far, op: value, elems: sequences * 10 * 128}
    - {name: fixed, op: attention, inputs: [behind, far], cached: false, rows: 10 * sequences, heads: heads,
       head_dim: head_dim}
    - {name: sum, op: add, inputs: [fixed, input]}
""",
    "scanning": """
    - {name: in_proj, op: gemm, k: hidden_size, split: column, parts: {x: 96, z: 96, b: 32}, module: mixer.in_proj}
    - {name: conv, op: conv, inputs: [in_proj.x, in_proj.b], channels: 128, taps: 4, bias: true}
    - {name: scan, op: scan, channels: 96, state: 16, reads: 128, learned: 3 * 12, matrix: true}
    - {name: gate, op: activation, inputs: [scan, in_proj.z], learned: 1}
    - {name: both, op: join, inputs: [gate, input]}
    - {name: laid, op: copy}
    - {name: some, op: part, elems: tokens * 96}
    - {name: out_proj, op: gemm, n: hidden_size, k: 96, module: mixer.out_proj}
    - {name: sum, op: add, inputs: [out_proj, input]}
""",
    "routing": """
    - {name: router, op: gemm, n: 8, k: hidden_size, module: mlp.gate, quantised: false, bare: true}
    - {name: route, op: route, experts: 8, chosen: 2, learned: 8}
    - {name: gather, op: gather_tokens, inputs: [input, route], chosen: 2}
    - {name: up, op: expert_gemm, n: 2 * 24, k: hidden_size, experts: 8, chosen: 2, split: column, bias: true,
       module: mlp.experts.gate_up_proj, targets: [ffn], rank_factor: 2, fuses: [gate_proj, up_proj]}
    - {name: act, op: expert_activation, width: 24, chosen: 2}
    - {name: down, op: expert_gemm, n: hidden_size, k: 24, experts: 8, chosen: 2, split: row,
       module: mlp.experts.down_proj, targets: [ffn], fuses: [down_proj]}
    - {name: combine, op: combine_tokens, chosen: 2}
    - {name: sum, op: add, inputs: [combine, input]}
""",
    "grouping": """
    - {name: headed, op: gemm, n: 4, k: 8, heads: 8}
    - {name: grouped, op: gemm, n: hidden_size, k: 8, groups: 4, split: column, units: 4, module: grouped}
    - {name: chosen, op: take_rows, inputs: input, rows: sequences, width: 64}
    - {name: pooled, op: gemm, n: 64, k: 64, m: sequences, bias: true, module: pooler}
    - {name: told, op: compute, inputs: [grouped, pooled], elems: tokens * 64, flops: 2 * pairs, vector_flops: tokens,
       weights: 7, state: sequences * 5, launches: 3, note: a loop over chunks}
    - {name: more, op: compute, inputs: told, reads: tokens, unchecked: true, elems: tokens * 64}
    - {name: sum, op: add, inputs: [more, input]}
""",
    "resting": """
    - {name: unused_proj, op: gemm, n: 12, k: 64, bias: true, idle: true, module: unused.proj, targets: [ffn]}
    - {name: unused_norm, op: norm, idle: true}
    - {name: unused_table, op: embedding, entries: 9, width: 3, idle: true, parameter: unused.table}
    - {name: unused_conv, op: conv, channels: 6, taps: 4, idle: true}
    - {name: unused_scan, op: scan, channels: 6, state: 4, reads: 8, learned: 6, idle: true}
    - {name: unused_route, op: route, experts: 4, chosen: 2, learned: 4, idle: true}
    - {name: unused_experts, op: expert_gemm, n: 4, k: 5, experts: 4, chosen: 2, idle: true}
    - {name: unused_scale, op: elementwise, learned: 11, idle: true}
    - {name: unused_act, op: activation, learned: 2, idle: true}
    - {name: unused_rest, op: compute, weights: 13, idle: true}
    - {name: mlp, op: mlp, inputs: input, intermediate_size: 32}
    - {name: sum, op: add, inputs: [mlp, input]}
""",
}
"""Blocks by name."""

TWICE = """
    prompt:
      - {name: x_proj, op: gemm, n: 32, k: hidden_size, module: x_proj}
      - {name: chunks, op: compute, elems: tokens * 64, flops: 6 * tokens * 256, weights: 5, state: sequences * 256,
         note: the scan of a prompt in chunks}
      - {name: first, op: gemm, inputs: input, n: 64, k: 64, m: tokens, module: first_proj}
      - {name: sum, op: add, inputs: [chunks, first, input]}
    decode:
      - {name: x_proj, op: gemm, n: 32, k: hidden_size, module: x_proj}
      - {name: one, op: compute, elems: tokens * 64, vector_flops: 6 * tokens * 256, weights: 5, state: sequences * 256}
      - {name: first, op: gemm, n: 64, k: 64, idle: true, module: first_proj}
      - {name: sum, op: add, inputs: [one, input]}
"""
"""Two programs with the same weights."""

ENDS = """
  embeddings:
    - {name: tokens_table, op: embedding, entries: vocab_size, module: embed_tokens}
    - {name: places, op: embedding, entries: 512, whole: true, parameter: position_embeddings}
    - {name: sum, op: add, inputs: [tokens_table, places]}
    - {name: angles, op: compute, inputs: sum, elems: tokens * head_dim, reads: tokens, unchecked: true}
    - {name: given_on, op: hand_on}
    - {name: norm, op: norm, inputs: sum, kind: layer, module: embed_norm}
  logits:
    - {name: norm, op: norm, kind: layer, module: final_norm}
    - {name: last_tokens, op: take_rows}
    - {name: dense, op: gemm, n: 64, k: 64, m: logit_rows, module: head.dense, quantised: false}
    - {name: decoder, op: gemm, n: vocab_size, k: 64, split: column, head: true, shared: true, bias: true,
       module: head.decoder}
    - {name: capped, op: activation, steps: 6}
"""


def document(*names: str) -> dict[str, Any]:
    """A model of these layers, three of each in turn; of all kinds where none is named."""
    names = names or (*LAYERS, "twice")
    blocks = "".join(f"\n  {name}:{TWICE if name == 'twice' else LAYERS[name]}" for name in names)
    pattern = ", ".join(f"{{block: {name}}}" for name in names)
    text = f"""
name: everything
hidden_size: 64
vocab_size: 128
max_positions: 512
stem: embeddings
head: logits
attention: {{heads: 8, kv_heads: 2, head_dim: 8}}
names: {{layer: "layers.{{}}."}}
layers: [{{repeat: 3, pattern: [{pattern}]}}]
blocks:{blocks}{ENDS}
"""
    found: dict[str, Any] = yaml.safe_load(text)
    return found
