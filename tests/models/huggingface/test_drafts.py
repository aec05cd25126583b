"""Drafts: own weights only, a step of their own, and no class that is read as a family it is not."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import total_work, walk
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.huggingface.drafts import DRAFTS
from graphsim.models.phase import Sums, decode, generation_of, mixed, prefill
from graphsim.ops import Attention, Embedding, Gemm, KvCache, Sample
from graphsim.ops.precision import load_precision
from tests.models.checkpoint.folders import write_folder
from tests.paths import hf_configs

SMALL = {
    "model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 200,
}  # fmt: skip
BLOCKS = SMALL | {"model_type": "qwen3", "architectures": ["DFlashDraftModel"], "num_hidden_layers": 2}
OF_DRAFTS = {
    name: data for name, data in hf_configs().items()
    if data.get("architectures", [""])[0] in {*DRAFTS, "EagleSpeculator"}
}  # fmt: skip


def operations(config: gs.ModelConfig, phase, kind):
    graph = build(config, phase, load_precision("bf16"))
    return [(op, times) for _, op, times in walk(graph) if isinstance(op, kind)]


@pytest.mark.parametrize("name", OF_DRAFTS)
def test_what_is_the_targets_is_used_and_not_counted_and_a_note_says_so(name: str) -> None:
    config = from_config(OF_DRAFTS[name], name)
    counted = sum(round(float(op.parameters)) * times for op, times in operations(config, decode(1.0, 8.0), object))
    assert counted == config.num_parameters
    tables = [op for op, _ in operations(config, decode(1.0, 8.0), Embedding) if op.module == "embed_tokens"]
    assert all(op.parameters == 0.0 and op.out_elems > 0 for op in tables)
    assert "target's" in config.notes[0] and config.notes[1].startswith("one step of it")


@pytest.mark.parametrize(
    "named",
    ["GptOssForCausalLMEagle3", "Step3p5MTP", "EagleMiniCPMForCausalLM", "MiniMaxM2ForCausalLMNextN",
     "PEagleDraftModel", "DSparkDraftModel", "DFlash2DraftModel", "MedusaLlamaForCausalLM", "MistralForCausalLMEagle"],
)  # fmt: skip
def test_a_draft_that_is_not_known_is_never_the_family_it_is_made_of(named: str) -> None:
    with pytest.raises(gs.ConfigError, match="is a draft that is not known"):
        from_config(SMALL | {"architectures": [named]}, "config.json")


def test_a_class_with_an_ending_that_is_not_known_is_never_the_family() -> None:
    for ending in ("ForCausalLMV9", "ForRanking", "Decoder", "ForCausalLMWithValueHead"):
        with pytest.raises(gs.ConfigError, match="architectures"):
            from_config(SMALL | {"architectures": [f"Llama{ending}"]}, "config.json")


def test_a_smaller_vocabulary_of_its_own_makes_a_llama_an_eagle3_draft() -> None:
    named = from_config(SMALL | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 64}, "config.json")
    plain = from_config(SMALL | {"architectures": ["LlamaForCausalLM"], "draft_vocab_size": 64}, "config.json")
    assert plain.num_parameters == named.num_parameters and plain.layers == named.layers


def test_a_draft_without_sizes_says_which_are_missing() -> None:
    data = {"base_model_name_or_path": "lmsys/vicuna-7b-v1.3", "medusa_num_heads": 4, "medusa_num_layers": 1}
    with pytest.raises(gs.ConfigError, match="vocab_size is missing.*hidden_size is missing"):
        from_config(data | {"model_type": "medusa"}, "config.json")


@pytest.mark.parametrize("key", ["num_nextn_predict_layers", "mtp_num_hidden_layers"])
def test_several_layers_that_draft_in_turn_are_refused(key: str) -> None:
    data = SMALL | {"architectures": ["MiMoMTPModel"], key: 3}
    with pytest.raises(gs.ConfigError, match=f"{key} = 3 is not allowed"):
        from_config(data, "config.json")


def test_keys_that_shape_a_draft_and_are_not_read_refuse_it() -> None:
    given = SMALL | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 64}
    for wrong in ({"eagle_config": {"extra_layers": 2}}, {"markov_rank": 8}, {"num_experts": 4}):
        with pytest.raises(gs.ConfigError, match="is not supported"):
            from_config(given | wrong, "config.json")


def test_an_eagle3_step_multiplies_each_row_with_each_of_its_weights() -> None:
    data = SMALL | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 64}
    config = from_config(data, "config.json")
    hidden, inner, heads, keys, width, batch, past = 48, 80, 6, 2, 8, 3, 20
    fused = 3 * hidden * hidden
    attention = 2 * hidden * (heads + 2 * keys) * width + heads * width * hidden
    per_row = fused + attention + 3 * hidden * inner + hidden * 64
    seen = 2 * 2 * batch * (past + 1) * heads * width
    work = total_work(build(config, decode(float(batch), float(past)), load_precision("bf16")))
    assert work.flops == 2 * batch * per_row + seen


def test_medusa_runs_its_heads_on_the_last_state_alone() -> None:
    data = {"architectures": ["MedusaModel"], "hidden_size": 48, "vocab_size": 200, "num_heads": 3}
    config = from_config(data | {"num_hidden_layers": 2}, "config.json")
    for phase in (prefill(5.0, 30.0), decode(5.0, 30.0)):
        assert {float(op.m) for op, _ in operations(config, phase, Gemm)} == {5.0}
        assert len(operations(config, phase, Sample)) == 3


def _pairs(past: int, new: int, block: int, window: int, masked: bool) -> int:
    """Keys that each token of a block sees, counted one by one."""
    start, seen = past + new, 0
    for query, key in product(range(start, start + block), range(start + block)):
        seen += (key <= query or not masked) and (not window or key > query - window)
    return seen


@pytest.mark.parametrize("window, masked", [(0, False), (6, True), (6, False), (40, True)])
@pytest.mark.parametrize("past, new", [(0, 12), (9, 1), (3, 2)])
def test_a_block_sees_the_targets_states_and_itself(past: int, new: int, window: int, masked: bool) -> None:
    block, batch = 4, 3
    said = {"block_size": block, "target_layer_ids": [1, 2], "causal": masked}
    kinds = ["sliding_attention" if window else "full_attention"] * 2
    config = from_config(BLOCKS | {"dflash_config": said, "layer_types": kinds, "sliding_window": window or None}, "x")
    phase = prefill(float(batch), float(new), float(past)) if new > 1 else decode(float(batch), float(past))
    (kernel, times), *_ = operations(config, phase, Attention)
    assert times == 2 and kernel.query_tokens == batch * block
    assert kernel.pairs == batch * _pairs(past, new, block, window, masked)
    (cache, _), *_ = operations(config, phase, KvCache)
    assert cache.new_tokens == batch * (new + block)
    rows = {(op.role, float(op.m)) for op, _ in operations(config, phase, Gemm)}
    assert {("q_proj", 12.0), ("k_proj", batch * (new + block)), ("fc", batch * new), ("lm_head", 9.0)} <= rows


def test_a_block_behind_sequences_known_by_their_sums_is_that_behind_equal_ones() -> None:
    equal, sums = decode(3.0, 20.0).drafting(4.0), generation_of(3.0, 63.0).drafting(4.0)
    assert isinstance(sums.segments[0], Sums)
    for one, other in zip(equal.segments, sums.segments, strict=True):
        for window in (0, 5):
            assert one.pairs(window) == other.pairs(window) and one.kv_tokens(window) == other.kv_tokens(window)
    both = mixed(prefill(2.0, 9.0), decode(3.0, 20.0)).drafting(4.0)
    assert both.tokens == 20.0 and both.logit_rows == 15.0


def test_adapters_reach_a_drafts_own_projections_by_their_names() -> None:
    config = from_config(SMALL | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 64}, "config.json")
    reached = {"q_proj": 96 + 48, "k_proj": 96 + 16, "fc": 144 + 48, "down_proj": 80 + 48}
    for module, both in reached.items():
        assert gs.lora_parameters(config, gs.LoraConfig(rank=4, target_modules=[module])) == 4 * both


def test_stages_of_a_pipeline_hold_no_copy_of_the_targets_table_or_head() -> None:
    config = from_config(BLOCKS | {"block_size": 4}, "config.json")
    stages = [build(config, decode(1.0, 8.0), load_precision("bf16"), range(i, i + 1)) for i in range(2)]
    names = [
        op.module for stage in stages for _, op, _ in walk(stage) if float(op.parameters) and hasattr(op, "module")
    ]
    assert not {"embed_tokens", "lm_head"} & set(names)


def test_arrays_of_scenarios_equal_scenarios_one_by_one() -> None:
    config = from_config(BLOCKS | {"block_size": 4}, "config.json")
    batches, pasts = np.array([1.0, 3.0, 8.0]), np.array([5.0, 64.0, 7.0])
    whole = total_work(build(config, decode(batches, pasts), load_precision("bf16")))
    for i, (batch, past) in enumerate(zip(batches, pasts, strict=True)):
        one = total_work(build(config, decode(float(batch), float(past)), load_precision("bf16")))
        assert whole.flops[i] == one.flops


EAGLE3 = {
    "fc.weight": (48, 144), "lm_head.weight": (64, 48), "norm.weight": (48,),
    "midlayer.hidden_norm.weight": (48,), "midlayer.input_layernorm.weight": (48,),
    "midlayer.post_attention_layernorm.weight": (48,), "midlayer.self_attn.q_proj.weight": (48, 96),
    "midlayer.self_attn.k_proj.weight": (16, 96), "midlayer.self_attn.v_proj.weight": (16, 96),
    "midlayer.self_attn.o_proj.weight": (48, 48), "midlayer.mlp.gate_proj.weight": (80, 48),
    "midlayer.mlp.up_proj.weight": (80, 48), "midlayer.mlp.down_proj.weight": (48, 80),
}  # fmt: skip
"""Tensors of an EAGLE-3 checkpoint as SpecForge writes it."""


def test_a_drafts_checkpoint_is_compared_with_its_structure(tmp_path: Path) -> None:
    data = SMALL | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 64}
    held = {name: ("BF16", shape) for name, shape in EAGLE3.items()}
    mapped = {"d2t": ("I64", (64,)), "t2d": ("BOOL", (200,)), "embed_tokens.weight": ("BF16", (200, 48))}
    report = gs.check_checkpoint(write_folder(tmp_path / "right", data, held | mapped))
    assert not report.differences and report.parameters == sum(math.prod(shape) for shape in EAGLE3.values())
    wrong = held | {"midlayer.self_attn.q_proj.weight": ("BF16", (48, 48))}
    with pytest.raises(gs.ConfigError, match="q_proj"):
        gs.load_model(write_folder(tmp_path / "wrong", data, wrong))


def test_the_keys_of_speculators_may_come_without_a_model_type() -> None:
    layer = {"architectures": ["Eagle3DraftModel"], "speculators_model_type": "eagle3", "draft_vocab_size": 64}
    nested = from_config(layer | {"transformer_layer_config": SMALL, "norm_before_fc": True}, "config.json")
    plain = from_config(SMALL | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 64}, "config.json")
    assert nested.num_parameters == plain.num_parameters + 3 * 48
    assert nested.layer_prefix == "layers.{}." and plain.layer_prefix == "midlayer."
    with pytest.raises(gs.ConfigError, match="speculators_model_type = 'peagle' is not known"):
        from_config(layer | {"speculators_model_type": "peagle", "transformer_layer_config": SMALL}, "config.json")
    with pytest.raises(gs.ConfigError, match="model_type = 'qwen3' is not allowed"):
        from_config(layer | {"transformer_layer_config": SMALL | {"model_type": "qwen3"}}, "config.json")
