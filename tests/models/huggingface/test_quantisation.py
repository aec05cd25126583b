"""Quantised checkpoints: formats and true bytes per weight, scales included."""

import json
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops.precision import load_precision
from tests.paths import hf_configs

LLAMA = hf_configs()["default:llama"]


def bytes_of(model: gs.ModelConfig, precision: str) -> float:
    graph = build(model, prefill(1.0, 1.0).with_towers, load_precision(precision))
    return sum(float(op.weight_storage_bytes) * times for _, op, times in walk(graph))


def quantised(num_hidden_layers: int = 32, **config: Any) -> gs.ModelConfig:
    return gs.load_model(LLAMA | {"num_hidden_layers": num_hidden_layers, "quantization_config": config})


@pytest.mark.parametrize(
    ("config", "bits", "kv"),
    [
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, 8, "bf16"),
        # an fp32 scale for each block of 128 x 128 weights
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 128**2, "bf16"),
        # an fp16 scale and a 4-bit zero point for each group of 128
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": False}, 4 + (16 + 4) / 128, "bf16"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}, 4 + (16 + 4) / 64, "bf16"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, 4 + 16 / 128, "bf16"),
        # absmax in fp32 per 64 values; with double quantisation in 8 bits, and fp32 per 256 of those
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4 + 32 / 64, "bf16"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True},
            4 + 8 / 64 + 32 / (64 * 256),
            "bf16",
        ),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8, "bf16"),
        # an e4m3 scale for each 16 values
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}, 4 + 8 / 16, "fp8"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}},
            },
            4 + 16 / 128,
            "bf16",
        ),
    ],
)
def test_bytes_per_weight_and_cache_format(config: dict[str, Any], bits: float, kv: str) -> None:
    precision = quantised(**config).precision
    assert precision is not None
    assert precision.weights.bytes * 8 == pytest.approx(bits, rel=1e-12)
    assert precision.kv.name == kv


def test_only_the_experts_of_gpt_oss_are_quantised() -> None:
    data = hf_configs()["default:gpt_oss"]
    precision = gs.load_model(data | {"quantization_config": {"quant_method": "mxfp4"}}).precision
    assert precision is not None and precision.experts is not None
    assert (precision.weights.name, precision.experts.name) == ("bf16", "mxfp4")


def test_the_file_beside_config_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    quant = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(quant))
    precision = gs.load_model(tmp_path).precision
    assert precision is not None and precision.name == "fp8,kv=fp8"


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "magic"},
        {"quant_method": "aqlm"},
        {"quant_method": "modelopt", "quant_algo": "FP3"},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
        {"quant_method": "bitsandbytes"},
        {"quant_method": "gptq", "bits": 4, "dynamic": {"-:(": {}}},
        {"quant_method": "gptq", "bits": 4, "dynamic": ["-:.*"]},
        {"quant_method": "fp8", "weight_block_size": [128]},
        {"quant_method": "fp8", "modules_to_not_convert": "lm_head"},
        {"quant_method": "awq", "modules_to_not_convert": [7]},
        {"quant_method": "compressed-tensors", "format": "sparse-24-bitmask"},
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 5}}},
        {"quant_method": "torchao", "quant_type": "autoquant"},
        7,
        [],
    ],
)
def test_unknown_quantisation_is_an_error(config: Any) -> None:
    with pytest.raises(gs.ConfigError, match="quantization_config"):
        gs.load_model(LLAMA | {"quantization_config": config})


QUARK = {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, "input_tensors": {"dtype": "fp8_e4m3"}}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "fp8", "weight_block_size": [64, 32]}, "fp8_block_64x32"),
        # a list that is given replaces the default one: with the head not in it, the head is quantised too
        ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "self_attn"]}, "fp8"),
        ({"quant_method": "fp8", "modules_to_not_convert": []}, "fp8,lm_head=fp8"),
        ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.layers.*.self_attn"]},
         "fp8,attention=bf16"),
        ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head", "model.layers.0", "model.layers.3.mlp"]},
         "fp8_row,model.layers.{0}.self_attn.q_proj=bf16,model.layers.{0}.self_attn.k_proj=bf16,"
         "model.layers.{0}.self_attn.v_proj=bf16,model.layers.{0}.self_attn.o_proj=bf16,"
         "model.layers.{0|3}.mlp.gate_proj=bf16,model.layers.{0|3}.mlp.up_proj=bf16,model.layers.{0|3}.mlp.down_proj=bf16"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "lm_head": True}, "int4_sym,lm_head=int4_sym"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:lm_head": {"bits": 8, "group_size": 32}}},
         "int4_sym,lm_head=int8_g32_sym"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*down_proj": {"bits": 8}, "-:.*": {}}},
         "bf16,model.layers.{}.mlp.down_proj=int8_g128_sym"),
        ({"quant_method": "gptq", "bits": 4, "desc_act": True}, "int4_sym_act"),
        ({"quant_method": "awq", "bits": 4, "zero_point": True}, "int4"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": False}, "int4_g64_sym"),
        ({"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp"}, "mxfp4"),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
         "int4_g64_z16"),
        ({"quant_method": "quanto", "weights": "int8"}, "int8_channel_sym"),
        ({"quant_method": "eetq"}, "int8_channel_sym"),
        ({"quant_method": "bitnet"}, "ternary"),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 32}},
         "int4_g32_z16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
         "nvfp4,kv=fp8"),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": None}},
         "int4_sym"),
        ({"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}, "bf16,kv=fp8"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"load_in_8bit": True}, "llm_int8"),
        ({"quant_method": "quark", "exclude": ["lm_head"], "export": {"kv_cache_group": ["*k_proj"]},
          "global_quant_config": QUARK,
          "layer_quant_config": {"*k_proj": QUARK | {"output_tensors": {"dtype": "fp8_e4m3"}}}},
         "fp8,kv=fp8"),
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head"],
          "kv_cache_scheme": {"num_bits": 8, "type": "float"},
          "config_groups": {"a": {"weights": {"num_bits": 8, "strategy": "channel"},
                                  "input_activations": {"num_bits": 8, "type": "int"}}}},
         "int8,kv=fp8"),
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {
            "a": {"targets": ["re:.*self_attn.*"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
                  "input_activations": {"num_bits": 8, "type": "float"}},
            "b": {"targets": ["re:.*mlp.*"], "weights": {"num_bits": 4, "type": "float", "group_size": 16},
                  "input_activations": {"num_bits": 4, "type": "float"}}}},
         "nvfp4,attention=fp8_channel"),
    ],
)  # fmt: skip
def test_a_checkpoint_is_named_in_as_few_words_as_say_it(config: dict[str, Any], name: str) -> None:
    precision = quantised(num_hidden_layers=4, **config).precision
    assert precision is not None and precision.name == name


def test_a_cache_in_an_unknown_format_is_never_read_as_16_bits() -> None:
    with pytest.raises(gs.ConfigError, match="kv_cache_quant_algo = 'FP3' is not known; did you mean 'FP8'"):
        quantised(num_hidden_layers=1, quant_method="modelopt", quant_algo="FP8", kv_cache_quant_algo="FP3")


@pytest.mark.parametrize("front", ["model.language_model.", "language_model.model."])
def test_towers_follow_the_list_too_and_the_language_model_under_either_of_its_names(front: str) -> None:
    """bitsandbytes converts every nn.Linear of a multimodal model; lists name its parts as classes of all ages do."""
    text = {"model_type": "gemma3_text", "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 512,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000}  # fmt: skip
    vision = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 56, "patch_size": 14}  # fmt: skip

    def name(skipped: list[str]) -> str:
        quant = {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": skipped}
        config = {"model_type": "gemma3", "text_config": text, "vision_config": vision, "quantization_config": quant}
        precision = gs.load_model(config).precision
        assert precision is not None
        return precision.name

    assert name(["lm_head", "vision_tower", "multi_modal_projector"]) == "nf4"
    assert "vision_tower.encoder.layers.{}.mlp.fc1=nf4" in name(["lm_head"])
    own = name(["lm_head", "vision_tower", "multi_modal_projector", f"{front}layers.1.mlp"])
    assert own.count("{1}") == 3 and "{1}.mlp.down_proj=bf16" in own


def test_a_note_says_what_of_a_config_nobody_looks_at() -> None:
    known = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
    assert not quantised(**known).notes
    assert quantised(**known, rotate_everything=True).notes == ("quantization_config: rotate_everything ignored",)


def test_the_layers_of_a_mixed_checkpoint_may_lie_in_the_file_beside_config_json(tmp_path: Path) -> None:
    said = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"num_hidden_layers": 2, "quantization_config": said}))
    layers = {
        f"model.layers.{i}.mlp.{leaf}_proj": {"quant_algo": "FP8"} for i in range(2) for leaf in ("gate", "up", "down")
    }
    quant = {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers},
    }
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(quant))
    precision = gs.load_model(tmp_path).precision
    assert precision is not None and precision.name == "fp8,attention=bf16"


# total_size of model.safetensors.index.json: hf-mem issue 60; the index of openai/gpt-oss-20b
@pytest.mark.parametrize(("model", "size"), [("gpt-oss-120b", 65_248_815_744), ("gpt-oss-20b", 13_761_264_768)])
def test_gpt_oss_weighs_what_its_files_weigh(model: str, size: int) -> None:
    found = gs.load_model(model)
    assert found.precision is not None and found.precision.name == "bf16,experts=mxfp4"
    assert bytes_of(found, found.precision.name) == size < bytes_of(found, "bf16") / 3


def test_a_published_hybrid_in_4_bits_weighs_what_its_file_weighs() -> None:
    """Qwen3.6-27B by llm-compressor (github.com/fantasylord/Qwen36, config.json and model.safetensors there).

    The file's header is some 300,000 of its 18,698,467,264 bytes. What `ignore` says of a linear attention as a whole
    is no linear layer; the tower is left out module by module.
    """
    kinds = ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(64)]
    left_out = [
        f"model.language_model.layers.{i}.linear_attn{part}"
        for i, kind in enumerate(kinds)
        for part in ("", ".norm", ".in_proj_b", ".in_proj_a")
        if kind == "linear_attention"
    ]
    left_out += [
        f"model.visual.blocks.{i}.{part}"
        for i in range(27)
        for part in ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")
    ]
    left_out += ["model.visual.merger.linear_fc1", "model.visual.merger.linear_fc2", "lm_head", "mtp.fc"]
    text = {
        "model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64,
        "layer_types": kinds, "head_dim": 256, "num_attention_heads": 24, "num_key_value_heads": 4,
        "vocab_size": 248320, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
        "linear_num_value_heads": 48, "linear_value_head_dim": 128, "attn_output_gate": True,
        "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {
        "model_type": "qwen3_5_vision", "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
        "in_channels": 3, "num_position_embeddings": 2304, "out_hidden_size": 5120, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "deepstack_visual_indexes": [],
    }  # fmt: skip
    weights = {"group_size": 128, "num_bits": 4, "strategy": "group", "symmetric": False, "type": "int"}
    quant = {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": left_out,
        "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": None, "weights": weights}},
    }  # fmt: skip
    config = {"model_type": "qwen3_5", "text_config": text, "vision_config": vision, "quantization_config": quant}
    model = gs.load_model(config | {"tie_word_embeddings": False})
    assert model.precision is not None
    assert 0 < 18_698_467_264 - bytes_of(model, model.precision.name) < 400_000


def test_experts_have_a_format_of_their_own_where_the_config_says_so_in_or_beside_the_quantisation() -> None:
    """DeepSeek-V4: FP8 in blocks, experts in e2m1 with an e8m0 scale for each 32."""
    moe, fp8 = hf_configs()["default:deepseek_v3"], {"quant_method": "fp8", "weight_block_size": [128, 128]}
    for config in ({"quantization_config": fp8 | {"expert_dtype": "fp4"}},
                   {"quantization_config": fp8, "expert_dtype": "fp4"}):  # fmt: skip
        precision = gs.load_model(moe | config).precision
        assert precision is not None and precision.name == "fp8_block,experts=mxfp4"


def test_experts_of_one_layer_in_different_formats_are_refused() -> None:
    """One kernel multiplies by all of them (vLLM, `get_moe_method`: one scheme for all projections)."""
    moe = hf_configs()["default:qwen3_moe"]
    rules = {r"-:.*layers\.3\.mlp\.experts\.7\..*": {}}
    with pytest.raises(gs.ConfigError, match=r"layers\.3\.mlp\.experts.* bf16, int4_sym.* must be alike"):
        gs.load_model(moe | {"quantization_config": {"quant_method": "gptq", "bits": 4, "dynamic": rules}})


def test_a_quantised_checkpoint_is_simulated_in_its_own_precision() -> None:
    plain = gs.simulate(LLAMA, "h100-sxm", engine="reference").memory.weights_bytes
    assert gs.simulate(quantised_data(), "h100-sxm", engine="reference").memory.weights_bytes < 0.6 * plain


def quantised_data() -> dict[str, Any]:
    return LLAMA | {"quantization_config": {"quant_method": "fp8"}}
