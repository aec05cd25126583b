"""A block written out in a file behaves as one that graphsim brings: same work, cuts, packs and adapters."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from graphsim.errors import ConfigError, GraphError
from graphsim.graph import to_text, total_work, validate, walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import inject, lora_parameters_of
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.layers.custom import STEP_NAMES
from graphsim.models.loading import load_model
from graphsim.models.phase import decode, mixed, prefill
from graphsim.models.yaml import read_model
from graphsim.ops import AllReduce, Gemm, Join, Repeat
from graphsim.ops.custom import Compute
from graphsim.ops.precision import load_precision
from graphsim.passes.pack import pack
from graphsim.passes.shard import shard
from tests.paths import DATA

HYBRID = DATA / "conv-hybrid.yaml"
BF16 = load_precision("bf16")

READY = """
hidden_size: 64
vocab_size: 100
layers: 3
attention: {heads: 8, kv_heads: 2, window: 16}
mlp: {intermediate_size: 96}
"""

WRITTEN = """
hidden_size: 64
vocab_size: 100
attention: {heads: 8, kv_heads: 2, window: 16}
mlp: {intermediate_size: 96}
layers: [{repeat: 3, block: llama}]
fields: {q_width: heads * head_dim, kv_width: kv_heads * head_dim}
blocks:
  llama:
    - {name: input_layernorm, op: norm}
    - {name: q_proj, op: gemm, inputs: input_layernorm, n: q_width, k: hidden_size, split: column, units: heads,
       pack: qkv_proj, module: self_attn.q_proj, targets: [attn, qkv, query]}
    - {name: k_proj, op: gemm, inputs: input_layernorm, n: kv_width, k: hidden_size, split: column, units: kv_heads,
       pack: qkv_proj, module: self_attn.k_proj, targets: [attn, qkv, key]}
    - {name: v_proj, op: gemm, inputs: input_layernorm, n: kv_width, k: hidden_size, split: column, units: kv_heads,
       pack: qkv_proj, module: self_attn.v_proj, targets: [attn, qkv, value]}
    - {name: rope, op: rope, inputs: [q_proj, k_proj], heads: heads, kv_heads: kv_heads, head_dim: head_dim}
    - {name: attention, op: attention, inputs: [rope.q, rope.k, v_proj], heads: heads, kv_heads: kv_heads,
       head_dim: head_dim, window: window}
    - {name: o_proj, op: gemm, n: hidden_size, k: q_width, split: row, units: heads,
       module: self_attn.o_proj, targets: [attn, out proj]}
    - {name: attn_residual, op: add, inputs: [o_proj, input]}
    - {name: post_attention_layernorm, op: norm}
    - {name: gate_proj, op: gemm, inputs: post_attention_layernorm, n: intermediate_size, k: hidden_size,
       split: column, pack: gate_up_proj, module: mlp.gate_proj, targets: [ffn, gate, up+gate, w1]}
    - {name: up_proj, op: gemm, inputs: post_attention_layernorm, n: intermediate_size, k: hidden_size,
       split: column, pack: gate_up_proj, module: mlp.up_proj, targets: [ffn, up, up+gate, w3]}
    - {name: act_mul, op: activation, inputs: [gate_proj, up_proj]}
    - {name: down_proj, op: gemm, n: hidden_size, k: intermediate_size, split: row,
       module: mlp.down_proj, targets: [ffn, down, w2]}
    - {name: mlp_residual, op: add, inputs: [down_proj, attn_residual]}
"""

PHASES = {
    "prefill": prefill(2.0, 24.0),
    "decode": decode(3.0, 50.0),
    "mixed": mixed(prefill(1.0, 8.0), decode(3.0, 50.0)),
}
ADAPTERS = {
    "none": None,
    "all-linear": LoraConfig(rank=4, target_modules="all-linear"),
    "words": LoraConfig(rank=4, target_modules=["qkv", "down"]),
    "names": LoraConfig(rank=4, target_modules=["o_proj", "mlp.up_proj"]),
    "merge": LoraConfig(rank=4, target_modules=["attn"], strategy="merge"),
}


def read(text: str) -> ModelConfig:
    return read_model(yaml.safe_load(text), "own.yaml", "own")


def described(graph):
    """Nodes with their inputs and dimensions, and what adapters see of them."""
    seen = [(getattr(op, "module", ""), getattr(op, "tags", ())) for _, op, _ in walk(graph)]
    return to_text(graph), seen


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_llama_block_written_out_is_the_ready_made_one(phase, adapter):
    written, ready = (inject(build(read(text), PHASES[phase], BF16), ADAPTERS[adapter]) for text in (WRITTEN, READY))
    assert described(written) == described(ready)
    assert described(pack(shard(written, 2.0))) == described(pack(shard(ready, 2.0)))
    assert described(shard(written, 4.0, True)) == described(shard(ready, 4.0, True))
    assert lora_parameters_of(written) == lora_parameters_of(ready)


def test_equal_blocks_are_collapsed_into_one_repeat():
    graph = build(read(WRITTEN), PHASES["decode"], BF16)
    assert [op.times for _, op in graph.nodes(data="op") if isinstance(op, Repeat)] == [3]


def test_arrays_of_scenarios_equal_scenarios_one_by_one():
    model = load_model(HYBRID)
    batch, length = np.array([1.0, 4.0, 7.0]), np.array([10.0, 700.0, 64.0])
    together = total_work(shard(build(model, prefill(batch, length), BF16), np.array([1.0, 2.0, 4.0])))
    for i, tp in enumerate((1.0, 2.0, 4.0)):
        alone = total_work(shard(build(model, prefill(batch[i], length[i]), BF16), tp))
        for name in ("flops", "vector_flops", "weight_bytes", "input_bytes", "write_bytes", "message_bytes"):
            assert getattr(together, name)[i] == pytest.approx(getattr(alone, name), rel=1e-12)


def test_the_hybrid_has_the_weights_its_author_can_count():
    hidden, inner, heads, kv, dim, vocab = 1024, 1536, 16, 4, 64, 32000
    attention = hidden * dim * (heads + kv + kv) + heads * dim * hidden
    first = attention + 3 * hidden * 5632 + 2 * hidden
    conv = hidden + hidden * 3 * inner + inner * 4 + inner * hidden + hidden + 3 * hidden * 2816
    parallel = hidden + attention + 2 * hidden * 2816
    wide = hidden + attention + 2 * hidden * 2 * 2816
    assert load_model(HYBRID).num_parameters == vocab * hidden + first + 8 * conv + 4 * parallel + wide + hidden


def test_partial_sums_are_added_before_they_are_reduced():
    last = list(build(load_model(HYBRID), PHASES["prefill"], BF16).nodes(data="op"))[-5][1]
    assert isinstance(last, Repeat)
    sharded = shard(last.body, 2.0)
    assert [name for name, op in sharded.nodes(data="op") if isinstance(op, AllReduce)] == ["both.all_reduce"]


def test_stated_work_and_state_grow_as_the_author_wrote():
    for sequences, tokens in ((1.0, 10.0), (3.0, 40.0)):
        graph = build(load_model(HYBRID), prefill(sequences, tokens), BF16)
        op = next(op for _, op, _ in walk(graph) if isinstance(op, Compute))
        assert op.work().vector_flops == 2 * sequences * tokens * 1536 * 4
        assert op.state_bytes == sequences * 1536 * 3 * 2
        assert op.parameters == 1536 * 4


def test_a_share_of_stated_work_times_the_devices_is_the_whole():
    op = Compute(elems=64.0, reads=128.0, flops=1e6, vector_flops=3e3, weights_elems=32.0, state_elems=16.0)
    share = op.cut(4.0)
    for name, value in op.dims().items():
        assert share.dims()[name] * (1 if name == "launches" else 4) == value
    assert share.work().memory_bytes * 4 == op.work().memory_bytes


def test_an_adapter_reaches_own_blocks_by_word_and_by_module_path():
    graph = build(load_model(HYBRID), PHASES["prefill"], BF16)
    conv = inject(graph, LoraConfig(rank=8, target_modules=r"model\.layers\.\d+\.in_proj"))
    assert lora_parameters_of(conv) == 8 * 8 * (1024 + 3 * 1536)
    one = inject(graph, LoraConfig(rank=8, target_modules=["in_proj"], layers_to_transform=[4]))
    assert lora_parameters_of(one) == 8 * (1024 + 3 * 1536)
    with pytest.raises(ConfigError, match="in_prj"):
        inject(graph, LoraConfig(rank=8, target_modules=["in_prj"]))


def test_several_inputs_of_a_gemm_are_laid_side_by_side():
    model = read(
        """
hidden_size: 8
vocab_size: 10
blocks:
  own:
    - {name: a, op: gemm, inputs: input, n: 4, k: 8, parts: {x: 1, y: 3}}
    - {name: b, op: gemm, inputs: [a.y, input], n: 8, k: 11}
    - {name: c, op: mlp, inputs: [b], intermediate_size: 3}
    - {name: d, op: gemm, inputs: a.x, n: 8, k: 1}
    - {name: e, op: elementwise, inputs: [c, d], elems: tokens * hidden_size, steps: 2}
layers: [{repeat: 2, block: own}]
"""
    )
    graph = build(model, prefill(2.0, 3.0), BF16)
    validate(graph)
    assert [op.elems for _, op, _ in walk(graph) if isinstance(op, Join)] == [6 * 11]
    assert next(op for name, op, _ in walk(graph) if name.endswith(".b") and isinstance(op, Gemm)).m == 6


AT_DECODE = {"tokens": 3, "sequences": 3, "kv_tokens": 153, "pairs": 153, "logit_rows": 3, "new_tokens": 1,
             "context_tokens": 51, "source_tokens": 20, "encoded_rows": 0}  # fmt: skip
"""Of three sequences with 50 tokens in the cache and 20 rows of an encoder each."""


@pytest.mark.parametrize("name", STEP_NAMES)
def test_every_step_name_is_usable_in_sizes(name):
    compute = f"op: compute, elems: tokens * intermediate_size, flops: 7 * {name}"
    text = WRITTEN.replace("act_mul, op: activation", f"act_mul, {compute}")
    phase = decode(3.0, 50.0, source_tokens=20.0)
    op = next(op for _, op, _ in walk(build(read(text), phase, BF16)) if isinstance(op, Compute))
    assert op.flops == 7 * AT_DECODE[name]


def test_sizes_of_each_sequence_are_means_over_the_step():
    text = WRITTEN.replace("act_mul, op: activation", "act_mul, op: compute, elems: 96 * tokens, flops: NAME")
    phase = mixed(prefill(1.0, 8.0, source_tokens=12.0), decode(3.0, 50.0, source_tokens=20.0))
    found = {}
    for name in ("new_tokens", "context_tokens", "source_tokens", "encoded_rows"):
        graph = build(read(text.replace("NAME", name)), phase, BF16)
        found[name] = next(op.flops for _, op, _ in walk(graph) if isinstance(op, Compute))
    assert found == {
        "new_tokens": 11 / 4, "context_tokens": (8 + 153) / 4, "source_tokens": (12 + 60) / 4, "encoded_rows": 12
    }  # fmt: skip


def test_a_size_that_a_step_makes_impossible_is_an_error_of_that_step():
    text = WRITTEN.replace("act_mul, op: activation", "act_mul, op: compute, elems: 96 * tokens, flops: tokens - 3")
    model = read(text)
    build(model, decode(3.0, 50.0), BF16)
    with pytest.raises(GraphError, match=r"node 'act_mul': flops = \(tokens - 3\) is negative"):
        build(model, decode(2.0, 50.0), BF16)
