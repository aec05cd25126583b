"""A model file says what a person means, and a mistake in it is explained in one sentence."""

from __future__ import annotations

import pytest

from graphsim.models.config import ModelConfig
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.block import Block
from graphsim.models.layers.mlp import Mlp
from tests.models.yaml_files import BLOCK, GOOD, MOE, read


def parts_of(model: ModelConfig, layer: int) -> tuple[SelfAttention, Mlp]:
    block = model.layers[layer]
    assert isinstance(block, Block)
    attention, mlp = (residual.branches[0].layer for residual in block.parts)
    assert isinstance(attention, SelfAttention) and isinstance(mlp, Mlp)
    return attention, mlp


def test_five_keys_describe_a_model():
    model = read(GOOD)
    attention, mlp = parts_of(model, 0)
    assert (model.name, model.num_layers, model.vocab_size) == ("own", 4, 100)
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (8, 2, 8)
    assert (mlp.intermediate, mlp.gated) == (96, True)
    assert len(set(model.layers)) == 1


def test_groups_and_patterns_override_the_sections_key_by_key():
    model = read(
        GOOD.replace(
            "layers: 4",
            """layers:
  - {repeat: 1, mlp: {intermediate_size: 48}}
  - repeat: 2
    attention: {kv_heads: 4}
    pattern:
      - attention: {window: 16}
      - attention: {window: 0, kv_heads: 1}
        mlp: {gated: false}
  - {}
""",
        )
    )
    found = [
        (a.heads, a.kv_heads, a.window, m.intermediate, m.gated) for a, m in (parts_of(model, i) for i in range(6))
    ]
    assert found == [
        (8, 2, 0, 48, True),
        (8, 4, 16, 96, True),
        (8, 1, 0, 96, False),
        (8, 4, 16, 96, True),
        (8, 1, 0, 96, False),
        (8, 2, 0, 96, True),
    ]


def test_a_section_may_be_given_by_the_layers_alone():
    model = read(
        """
hidden_size: 64
vocab_size: 100
layers: [{repeat: 2, attention: {heads: 4}, mlp: {intermediate_size: 8}}]
"""
    )
    assert parts_of(model, 1)[0].heads == 4


@pytest.mark.parametrize(("placement", "norms"), [("pre", 2), ("post", 2), ("both", 4)])
def test_norms_stand_where_the_placement_says(placement, norms):
    plain = 2 * 100 * 64 + 4 * (2 * 64 * 64 + 2 * 64 * 16 + 3 * 64 * 96) + 64
    assert read(GOOD + f"norm_placement: {placement}\n").num_parameters == plain + 4 * norms * 64


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("tied_embeddings: true", -100 * 64),
        ("head_bias: true", 100),
        ("norm: layer", 64 * 9),
        ("final_norm: false", -64),
        ("embedding_norm: layer", 128),
        ("residual: parallel", -4 * 64),
        ("residual: parallel_two_norms", 0),
        ("max_positions: 50\nlearned_positions: true", 50 * 64),
    ],
)
def test_each_switch_adds_its_own_weights(line, more):
    assert read(GOOD + line).num_parameters == read(GOOD).num_parameters + more


@pytest.mark.parametrize(
    ("section", "more"),
    [
        ("attention: {heads: 8, kv_heads: 2, bias: true}", 64 + 2 * 16 + 64),
        ("attention: {heads: 8, kv_heads: 2, qkv_bias: true}", 64 + 2 * 16),
        ("attention: {heads: 8, kv_heads: 2, qk_norm: head}", 8 + 8),
        ("attention: {heads: 8, kv_heads: 2, qk_norm: full}", 64 + 16),
        ("attention: {heads: 8, kv_heads: 2, sinks: true}", 8),
        ("attention: {heads: 8, kv_heads: 2, gated: true}", 64 * 64),
        ("attention: {heads: 8, kv_heads: 2, names: {qkv: attn.qkv}}", 0),
        ("attention: {heads: 8, kv_heads: 2, head_dim: 16}", 64 * 16 * (8 + 2 + 2 + 8) - 64 * 8 * (8 + 2 + 2 + 8)),
        ("attention: {heads: 8, kv_heads: 8}", 2 * 64 * 48),
    ],
)
def test_each_attention_key_adds_its_own_weights(section, more):
    changed = GOOD.replace("attention: {heads: 8, kv_heads: 2}", section)
    assert read(changed).num_parameters == read(GOOD).num_parameters + 4 * more


def test_a_mixture_of_experts_replaces_the_mlp_but_where_the_mlp_is_asked_for():
    router, experts, dense = 64 * 8, 8 * 3 * 64 * 16, 3 * 64 * 96
    rest = read(GOOD).num_parameters - 4 * dense
    assert read(MOE).num_parameters == rest + 4 * (router + experts)
    mixed = MOE.replace("layers: 4", "layers: [{feed_forward: mlp}, {repeat: 2}, {moe: {experts: 4}}]")
    mixed += "mlp: {intermediate_size: 96}\n"
    assert read(mixed).num_parameters == rest + dense + 2 * (router + experts) + (router + experts) // 2


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("shared_experts: 2", 3 * 64 * 32),
        ("shared_intermediate_size: 40", 3 * 64 * 40),
        ("shared_experts: 1, shared_gate: true", 3 * 64 * 16 + 64),
        ("correction: true", 8),
        ("router_bias: true", 8),
        ("bias: true", 8 * (2 * 16 + 64)),
        ("gated: false", -8 * 64 * 16),
        ("skew: 0.8", 0),
    ],
)
def test_each_key_of_the_experts_adds_its_own_weights(key, more):
    changed = MOE.replace("experts_per_token: 2", f"experts_per_token: 2, {key}")
    assert read(changed).num_parameters == read(MOE).num_parameters + 4 * more


def test_fields_may_refer_to_each_other_and_be_overridden_by_a_group():
    model = read(BLOCK.replace("[{repeat: 3, block: own}]", "[{block: own}, {block: own, fields: {inner: 16}}]"))
    assert model.num_parameters == 2 * 100 * 64 + 64 + 2 * 64 * 128 + 2 * 64 * 16


def test_a_block_named_by_the_model_is_every_layers():
    text = BLOCK.replace("layers: [{repeat: 3, block: own}]", "layers: 3\nblock: own")
    assert read(text).layers == read(BLOCK).layers


def test_equal_layers_are_equal_descriptions():
    assert len(set(read(BLOCK).layers)) == 1
    assert read(BLOCK).layers == read(BLOCK.replace("2 * hidden_size", "hidden_size + 64")).layers
