"""Checkpoints as they are published, whose tensors have other names than those that transformers saves.

Names: the modules of code that comes with a model, and transformers' older classes (5.24, `conversion_mapping.py`);
shapes follow from each config by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.checkpoint.compare import compare
from graphsim.models.checkpoint.names import is_buffer
from graphsim.models.huggingface import from_config
from tests.models.checkpoint.folders import Header, names_of, saved, size, stored, write_folder
from tests.models.checkpoint.stores import STORES, quantise
from tests.paths import hf_configs

Shapes = dict[str, tuple[int, ...]]


def explained_whole(config: dict[str, Any], header: Header, beside: str = "") -> None:
    """No difference; what is beside the model is told in a note, and all else is explained."""
    report = compare(from_config(config, "published", ("all",)), stored(header))
    assert report.differences == ()
    uncounted = [name for name in header if is_buffer(name) or (beside and re.search(beside, name))]
    rest = sum(size(*header[name]) for name in uncounted)
    assert report.explained_bytes == report.checkpoint_bytes - rest
    assert bool(beside) == any("left out" in note for note in report.notes), report.notes


WRAPPED = ((r"^language_model\.model\.", "model.language_model."), (r"^language_model\.lm_head", "lm_head"))
TOWERS = r"^(vision_tower|vision_model|multi_modal_projector|image_newline|audio_tower|projector|visual|query_tokens)"
CLASSES = (*WRAPPED, (TOWERS, r"model.\1"))
"""What transformers 5 calls the modules of LLaVA and its kin; published checkpoints keep the older names."""

RENAMED: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(
        ("aria", "gemma3", "got_ocr2", "internvl", "llava", "llava_next", "llava_onevision", "mistral3", "paligemma",
         "qwen2_audio", "vipllava"), CLASSES,
    ),
    "qwen2_vl": ((r"^visual\.", "model.visual."), (r"^model\.(?!visual)", "model.language_model.")),
    "qwen2_5_vl": ((r"^visual\.", "model.visual."), (r"^model\.(?!visual)", "model.language_model.")),
    "llama4": ((r"^language_model\.model\.", "model."), (r"^language_model\.lm_head", "lm_head")),
    "kimi_k25": ((r"\.model\.blocks\.", ".model.layers."), (r"^model\.mm_projector", "mm_projector")),
    "qianfan_ocr": ((r"\.model\.encoder\.", ".model."), (r"\.attention\.([qk]_norm)", r".attn.\1")),
    "mixtral": ((r"\.block_sparse_moe\.", ".mlp."), (r"\.w1\.", ".gate_proj."), (r"\.w2\.", ".down_proj."),
                (r"\.w3\.", ".up_proj.")),
    "deepseek_v4": ((r"^model\.", ""),),
    "nemotron_h": ((r"^backbone\.", "model."),),
    "hy_v4": ((r"\.hc_pre\.hc_", ".hc_"), (r"\.learnable_sink_param", ".sinks"), (r"\.linear_gate", ".gate_proj")),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(RENAMED))
def test_other_names_of_a_family_are_the_same_model(kind: str) -> None:
    config, header = saved(kind)
    renamed: Header = {}
    for name, entry in header.items():
        for pattern, text in RENAMED[kind]:
            name = re.sub(pattern, text, name)
        renamed[name] = entry
    assert renamed.keys() != header.keys()
    assert len(renamed) == len(header)
    explained_whole(config, renamed)


def further_layer(header: Header, layers: int, hidden: int, names: tuple[str, ...], as_layer: str) -> Header:
    """The last layer's tensors once more, as those of a layer that drafts tokens, and what it has beside them."""
    last, front = f"model.layers.{layers - 1}.", f"{as_layer}."
    found = {front + name.removeprefix(last): entry for name, entry in header.items() if name.startswith(last)}
    sizes = {"eh_proj": (hidden, 2 * hidden), "enorm": (hidden,), "hnorm": (hidden,), "shared_head.norm": (hidden,),
             "shared_head.head": (1_000, hidden), "embed_tokens": (1_000, hidden)}  # fmt: skip
    return found | {f"{front}{name}.weight": ("BF16", sizes[name]) for name in names}


DRAFTS = {
    "deepseek_v3": ("eh_proj", "enorm", "hnorm", "shared_head.norm", "shared_head.head", "embed_tokens"),
    "glm4_moe": ("eh_proj", "enorm", "hnorm", "shared_head.norm"),
    "exaone_moe": ("eh_proj", "enorm", "hnorm"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(DRAFTS))
def test_a_layer_behind_the_last_one_that_drafts_tokens_is_left_out(kind: str) -> None:
    config, header = saved(kind)
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    further = further_layer(header, layers, hidden, DRAFTS[kind], f"model.layers.{layers}")
    explained_whole(config, header | further, rf"^model\.layers\.{layers}\.")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3_5_moe", "qwen3_next", "mimo_v2_flash"])
def test_drafting_modules_of_their_own_are_left_out(kind: str) -> None:
    config, header = saved(kind)
    hidden = (config.get("text_config") or config).get("hidden_size", 2048)
    front = "model.mtp.layers.0" if kind == "mimo_v2_flash" else "mtp.layers.0"
    further: Header = {f"{front}.input_layernorm.weight": ("BF16", (hidden,)),
                       f"{front}.self_attn.q_proj.weight": ("BF16", (hidden, hidden)),
                       f"{front.partition('.layers')[0]}.fc.weight": ("BF16", (hidden, 2 * hidden))}  # fmt: skip
    explained_whole(config, header | further, r"mtp\.")


def internlm2(c: dict[str, Any]) -> Shapes:
    h, inner, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    qkv = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * (h // c["num_attention_heads"])
    own = {"attention.wqkv.weight": (qkv, h), "attention.wo.weight": (h, h), "feed_forward.w1.weight": (inner, h),
           "feed_forward.w3.weight": (inner, h), "feed_forward.w2.weight": (h, inner),
           "attention_norm.weight": (h,), "ffn_norm.weight": (h,)}  # fmt: skip
    ends = {"model.tok_embeddings.weight": (vocab, h), "model.norm.weight": (h,), "output.weight": (vocab, h)}
    return ends | {f"model.layers.{{}}.{name}": shape for name, shape in own.items()}


def qwen(c: dict[str, Any]) -> Shapes:
    h, inner, vocab = c["hidden_size"], c["intermediate_size"] // 2, c["vocab_size"]
    own = {"attn.c_attn.weight": (3 * h, h), "attn.c_attn.bias": (3 * h,), "attn.c_proj.weight": (h, h),
           "ln_1.weight": (h,), "ln_2.weight": (h,), "mlp.w1.weight": (inner, h), "mlp.w2.weight": (inner, h),
           "mlp.c_proj.weight": (h, inner)}  # fmt: skip
    ends = {"transformer.wte.weight": (vocab, h), "transformer.ln_f.weight": (h,), "lm_head.weight": (vocab, h)}
    return ends | {f"transformer.h.{{}}.{name}": shape for name, shape in own.items()}


def baichuan(c: dict[str, Any]) -> Shapes:
    h, inner, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    own = {"self_attn.W_pack.weight": (3 * h, h), "self_attn.o_proj.weight": (h, h), "input_layernorm.weight": (h,),
           "post_attention_layernorm.weight": (h,), "mlp.gate_proj.weight": (inner, h),
           "mlp.up_proj.weight": (inner, h), "mlp.down_proj.weight": (h, inner)}  # fmt: skip
    ends = {"model.embed_tokens.weight": (vocab, h), "model.norm.weight": (h,), "lm_head.weight": (vocab, h)}
    return ends | {f"model.layers.{{}}.{name}": shape for name, shape in own.items()}


def chatglm(c: dict[str, Any]) -> Shapes:
    h, inner, vocab = c["hidden_size"], c["ffn_hidden_size"], c["padded_vocab_size"]
    qkv = (c["num_attention_heads"] + 2 * c["multi_query_group_num"]) * c["kv_channels"]
    own = {"input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,),
           "self_attention.query_key_value.weight": (qkv, h), "self_attention.query_key_value.bias": (qkv,),
           "self_attention.dense.weight": (h, h), "mlp.dense_h_to_4h.weight": (2 * inner, h),
           "mlp.dense_4h_to_h.weight": (h, inner)}  # fmt: skip
    ends = {"transformer.embedding.word_embeddings.weight": (vocab, h), "transformer.output_layer.weight": (vocab, h),
            "transformer.encoder.final_layernorm.weight": (h,)}  # fmt: skip
    return ends | {f"transformer.encoder.layers.{{}}.{name}": shape for name, shape in own.items()}


def ling(c: dict[str, Any]) -> Shapes:
    h, inner, vocab, heads = c["hidden_size"], c["moe_intermediate_size"], c["vocab_size"], c["num_attention_heads"]
    qkv, shared = (heads + 2 * c["num_key_value_heads"]) * (h // heads), c["num_shared_experts"] * inner
    own = {
        "attention.query_key_value.weight": (qkv, h), "attention.dense.weight": (h, h), "input_layernorm.weight": (h,),
        "post_attention_layernorm.weight": (h,), "mlp.gate.weight": (c["num_experts"], h),
    }  # fmt: skip
    for front, width in (("shared_experts", shared), *((f"experts.{i}", inner) for i in range(c["num_experts"]))):
        own |= {f"mlp.{front}.{part}_proj.weight": (width, h) for part in ("gate", "up")}
        own[f"mlp.{front}.down_proj.weight"] = (h, width)
    ends = {"model.word_embeddings.weight": (vocab, h), "model.norm.weight": (h,), "lm_head.weight": (vocab, h)}
    return ends | {f"model.layers.{{}}.{name}": shape for name, shape in own.items()}


def grok(c: dict[str, Any]) -> Shapes:
    h, inner, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    kv = c["num_key_value_heads"] * (h // c["num_attention_heads"])
    own = {"attn.q_proj.weight": (h, h), "attn.k_proj.weight": (kv, h), "attn.v_proj.weight": (kv, h),
           "attn.o_proj.weight": (h, h), "moe_block.gate.weight": (c["num_experts"], h)}  # fmt: skip
    own |= {f"{norm}.scale": (h,) for norm in ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm")}
    for i in range(c["num_experts"]):
        own |= {f"moe_block.experts.{i}.{name}.weight": (inner, h) for name in ("linear_v", "linear")}
        own[f"moe_block.experts.{i}.linear_1.weight"] = (h, inner)
    ends = {"model.embed_tokens.weight": (vocab, h), "model.norm.scale": (h,), "lm_head.weight": (vocab, h)}
    return ends | {f"model.layers.{{}}.{name}": shape for name, shape in own.items()}


def arctic(c: dict[str, Any]) -> Shapes:
    h, inner, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    kv = c["num_key_value_heads"] * (h // c["num_attention_heads"])
    own = {"self_attn.q_proj.weight": (h, h), "self_attn.k_proj.weight": (kv, h), "self_attn.v_proj.weight": (kv, h),
           "self_attn.o_proj.weight": (h, h), "input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,),
           "residual_layernorm.weight": (h,), "block_sparse_moe.gate.weight": (c["num_local_experts"], h)}  # fmt: skip
    own |= {f"residual_mlp.{name}.weight": (h, h) for name in ("w1", "w2", "w3")}
    for i in range(c["num_local_experts"]):
        own |= {f"block_sparse_moe.experts.{i}.{name}.weight": (inner, h) for name in ("w1", "w3")}
        own[f"block_sparse_moe.experts.{i}.w2.weight"] = (h, inner)
    ends = {"model.embed_tokens.weight": (vocab, h), "model.norm.weight": (h,), "lm_head.weight": (vocab, h)}
    return ends | {f"model.layers.{{}}.{name}": shape for name, shape in own.items()}


def minimax(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    h, inner, vocab, wide = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["num_attention_heads"] * 128
    kv, shapes = c["num_key_value_heads"] * 128, {}
    linear = {"qkv_proj.weight": (3 * wide, h), "out_proj.weight": (h, wide), "output_gate.weight": (wide, h),
              "norm.weight": (wide,)}  # fmt: skip
    full = {"q_proj.weight": (wide, h), "k_proj.weight": (kv, h), "v_proj.weight": (kv, h), "o_proj.weight": (h, wide)}
    for i, kind in enumerate(c["attn_type_list"]):
        own = {f"self_attn.{name}": shape for name, shape in (full if kind else linear).items()}
        own |= {"input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,)}
        own["block_sparse_moe.gate.weight"] = (c["num_local_experts"], h)
        for e in range(c["num_local_experts"]):
            own |= {f"block_sparse_moe.experts.{e}.{name}.weight": (inner, h) for name in ("w1", "w3")}
            own[f"block_sparse_moe.experts.{e}.w2.weight"] = (h, inner)
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in own.items()}
    ends = {"model.embed_tokens.weight": (vocab, h), "model.norm.weight": (h,), "lm_head.weight": (vocab, h)}
    return ends | shapes


REMOTE = {
    "internlm/internlm2-7b": internlm2,
    "Qwen/Qwen-7B-Chat": qwen,
    "baichuan-inc/Baichuan-13B-Base": baichuan,
    "zai-org/chatglm3-6b": chatglm,
    "inclusionAI/Ling-lite-1.5": ling,
    "hpcai-tech/grok-1": grok,
    "Snowflake/snowflake-arctic-instruct": arctic,
    "MiniMaxAI/MiniMax-Text-01": minimax,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REMOTE))
def test_checkpoints_of_code_that_comes_with_a_model_are_explained(name: str) -> None:
    explained_whole(hf_configs()[name], published(name))


def published(name: str) -> Header:
    config = hf_configs()[name]
    layers = config.get("num_hidden_layers", config.get("num_layers"))
    return {
        full: ("BF16", shape)
        for entry, shape in REMOTE[name](config).items()
        for full in names_of(entry.replace("{}", f"{{0-{layers - 1}}}"))
    }


@pytest.mark.slow
@pytest.mark.parametrize("store", ["awq", "fp8_blocks", "gptq"])
@pytest.mark.parametrize("name", sorted(REMOTE)[3:])
def test_their_quantised_checkpoints_are_explained(name: str, store: str) -> None:
    layout, quantisation = STORES[store]
    config = hf_configs()[name] | {"quantization_config": quantisation}
    explained_whole(config, quantise(published(name), layout))


def original(header: Header) -> Header:
    """Under the names of Mistral's and Meta's own code, which `consolidated.safetensors` has."""
    names = (
        (r"^model\.embed_tokens", "tok_embeddings"), (r"^lm_head", "output"), (r"^model\.", ""),
        (r"self_attn\.([qkvo])_proj", r"attention.w\1"), (r"mlp\.gate_proj", "feed_forward.w1"),
        (r"mlp\.down_proj", "feed_forward.w2"), (r"mlp\.up_proj", "feed_forward.w3"),
        (r"input_layernorm", "attention_norm"), (r"post_attention_layernorm", "ffn_norm"),
    )  # fmt: skip
    renamed: Header = {}
    for name, entry in header.items():
        for pattern, text in names:
            name = re.sub(pattern, text, name)
        renamed[name] = entry
    return renamed


@pytest.mark.slow
def test_a_consolidated_file_beside_a_config_is_the_same_model(tmp_path: Path) -> None:
    config, header = saved("mistral")
    folder = write_folder(tmp_path / "m", config, original(header))
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    report = gs.check_checkpoint(folder)
    assert report.differences == ()
    assert report.explained == 1.0


def test_a_folder_with_mistrals_own_config_alone_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text("{}", encoding="utf-8")
    (tmp_path / "consolidated.safetensors").write_bytes(b"")
    with pytest.raises(gs.ConfigError, match=r"holds params\.json, .* own form, and no config\.json"):
        gs.load_model(tmp_path)
