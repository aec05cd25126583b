"""Quantised checkpoints: formats and true bytes per weight, scales included."""

import json
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from tests.paths import hf_configs

LLAMA = hf_configs()["default:llama"]


def quantised(**config: Any) -> gs.ModelConfig:
    return gs.load_model(LLAMA | {"quantization_config": config})


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
    "config", [{"quant_method": "magic"}, {"quant_method": "modelopt", "quant_algo": "FP3"}, 7, []]
)
def test_unknown_quantisation_is_an_error(config: Any) -> None:
    with pytest.raises(gs.ConfigError, match="quantization_config"):
        gs.load_model(LLAMA | {"quantization_config": config})


def test_a_quantised_checkpoint_is_simulated_in_its_own_precision() -> None:
    plain = gs.simulate(LLAMA, "h100-sxm").memory.weights_bytes
    assert gs.simulate(quantised_data(), "h100-sxm").memory.weights_bytes < 0.6 * plain


def quantised_data() -> dict[str, Any]:
    return LLAMA | {"quantization_config": {"quant_method": "fp8"}}
