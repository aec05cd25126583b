"""Model files that tests change: a plain one, one with experts, one that spells a block out, one with everything."""

from __future__ import annotations

import yaml

from graphsim.models.config import ModelConfig
from graphsim.models.yaml import read_model


def read(text: str) -> ModelConfig:
    """The model that the text of `own.yaml` describes."""
    return read_model(yaml.safe_load(text), "own.yaml", "own")


GOOD = """
hidden_size: 64
vocab_size: 100
layers: 4
attention: {heads: 8, kv_heads: 2}
mlp: {intermediate_size: 96}
"""

MOE = GOOD.replace("mlp: {intermediate_size: 96}", "moe: {experts: 8, experts_per_token: 2, intermediate_size: 16}")

BLOCK = """
hidden_size: 64
vocab_size: 100
fields: {inner: 2 * hidden_size}
blocks:
  own:
    - {name: up, op: gemm, n: inner, k: hidden_size}
    - {name: act, op: activation}
    - {name: down, op: gemm, n: hidden_size, k: inner}
    - {name: out, op: add, inputs: [down, input]}
layers: [{repeat: 3, block: own}]
"""

RICH = """
hidden_size: 8
vocab_size: 10
max_positions: 16
learned_positions: true
norm: rms
names: {layer: "model.layers.{}."}
attention: {heads: 4, kv_heads: 2, names: {q: q}}
mlp: {intermediate_size: 12}
fields: {inner: 2 * hidden_size, twice: 2 * inner}
blocks:
  own:
    - {name: qkv, op: gemm, k: 8, split: column, targets: [attn], parts: {q: {width: 8, units: 4}, k: 4, v: 4}}
    - {name: att, op: attention, inputs: [qkv.q, qkv.k, qkv.v], heads: heads, kv_heads: 2, head_dim: 2}
    - {name: any, op: compute, inputs: att, elems: tokens * twice, weights: 3, flops: pairs, state: sequences}
    - {name: out, op: gemm, n: 8, k: twice, m: tokens, bias: true}
    - {name: mlp, op: mlp, inputs: [out], intermediate_size: 6}
    - {name: sum, op: add, inputs: [mlp, input]}
layers:
  - {repeat: 1, mlp: {gated: false}}
  - {repeat: 2, pattern: [{block: own}, {attention: {window: 4}}]}
"""
