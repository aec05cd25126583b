"""How quantised checkpoints store one linear weight of n outputs and k inputs, as their libraries write it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.models.checkpoint.folders import Header

Store = Callable[[str, int, int], Header]


def gptq(name: str, n: int, k: int) -> Header:
    """AutoGPTQ and GPTQModel: 4 bits, eight in an int32 along the inputs, groups of 128."""
    return {
        f"{name}.qweight": ("I32", (k // 8, n)), f"{name}.qzeros": ("I32", (k // 128, n // 8)),
        f"{name}.scales": ("F16", (k // 128, n)), f"{name}.g_idx": ("I32", (k,)),
    }  # fmt: skip


def awq(name: str, n: int, k: int) -> Header:
    """AutoAWQ's gemm layout: eight in an int32 along the outputs."""
    return {
        f"{name}.qweight": ("I32", (k, n // 8)), f"{name}.qzeros": ("I32", (k // 128, n // 8)),
        f"{name}.scales": ("F16", (k // 128, n)),
    }  # fmt: skip


def packed(name: str, n: int, k: int) -> Header:
    """compressed-tensors' pack-quantized, symmetric, groups of 128."""
    return {
        f"{name}.weight_packed": ("I32", (n, k // 8)), f"{name}.weight_scale": ("BF16", (n, k // 128)),
        f"{name}.weight_shape": ("I64", (2,)),
    }  # fmt: skip


def fp8_blocks(name: str, n: int, k: int) -> Header:
    """DeepSeek-V3's: a scale for 128 x 128 weights."""
    blocks = (-(-n // 128), -(-k // 128))
    return {f"{name}.weight": ("F8_E4M3", (n, k)), f"{name}.weight_scale_inv": ("F32", blocks)}


def nvfp4(name: str, n: int, k: int) -> Header:
    """ModelOpt's: two in a byte, a scale for 16."""
    return {
        f"{name}.weight": ("U8", (n, k // 2)), f"{name}.weight_scale": ("F8_E4M3", (n, k // 16)),
        f"{name}.weight_scale_2": ("F32", ()), f"{name}.input_scale": ("F32", ()),
    }  # fmt: skip


def nf4(name: str, n: int, k: int) -> Header:
    """bitsandbytes': two in a byte, an absmax for 64."""
    return {
        f"{name}.weight": ("U8", (n * k // 2, 1)), f"{name}.weight.absmax": ("F32", (n * k // 64,)),
        f"{name}.weight.quant_map": ("F32", (16,)), f"{name}.weight.quant_state.bitsandbytes__nf4": ("U8", (82,)),
    }  # fmt: skip


def int8_rows(name: str, n: int, k: int) -> Header:
    """bitsandbytes' LLM.int8()."""
    return {f"{name}.weight": ("I8", (n, k)), f"{name}.SCB": ("F32", (n,)), f"{name}.weight_format": ("U8", ())}


STORES: dict[str, tuple[Store, dict[str, Any]]] = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": False}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}),
    "fp8_blocks": (fp8_blocks, {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}),
    "nvfp4": (nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    "llm_int8": (int8_rows, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "packed": (packed, {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": {
            "targets": ["Linear"], "input_activations": None,
            "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128},
        }},
    }),
}  # fmt: skip
"""Stores with the `quantization_config` that goes with each."""


def quantise(header: Header, store: Store, reached: Callable[[str], bool] = lambda name: True) -> Header:
    """A checkpoint whose layers' linear weights lie in a store; embeddings, norms, routers and the head stay."""
    out: Header = {}
    for name, (dtype, shape) in header.items():
        module = name.removesuffix(".weight")
        inside = re.search(r"(layers|\.h)\.\d", name) is not None
        linear = len(shape) == 2 and inside and not module.endswith((".gate", "shared_expert_gate"))
        out |= store(module, *shape) if linear and reached(module) else {name: (dtype, shape)}
    return out
