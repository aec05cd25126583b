"""Language models of multimodal models that equal a text model under another name."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, read_dims, wrapped
from graphsim.models.huggingface.llama import ernie, llama, qwen2, qwen3
from graphsim.models.huggingface.moe import glm4_moe, qwen_moe
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.mlp import Mlp, MlpNames


def glm4v(fields: Fields, name: str) -> ModelConfig:
    """GLM-4 with biases on q, k and v, regardless of the config; GLM-OCR has none."""
    dims = read_dims(fields)
    attention = SelfAttention(
        heads=dims.heads, kv_heads=dims.kv_heads, head_dim=dims.head_dim,
        qkv_bias=fields.data.get("model_type") != "glm_ocr_text",
    )  # fmt: skip
    block = wrapped(
        attention,
        Mlp(intermediate=dims.intermediate, names=MlpNames(fused="mlp.gate_up_proj")),
        before=("input_layernorm", "post_attention_layernorm"),
        after=("post_self_attn_layernorm", "post_mlp_layernorm"),
    )
    return assemble(name, dims, [block] * dims.layers)


FAMILIES: dict[str, Reader] = {
    "qwen2_vl": qwen2,
    "qwen2_vl_text": qwen2,
    "qwen2_5_vl": qwen2,
    "qwen2_5_vl_text": qwen2,
    "qwen2_5_omni_text": qwen2,
    "qwen3_vl_text": qwen3,
    "qwen3_vl_moe_text": qwen_moe,
    "glm4v_text": glm4v,
    "glm_ocr_text": glm4v,
    "glm4v_moe_text": glm4_moe,
    "paddleocr_vl_text": ernie,
    "granite_docling_text": llama,
}
"""Readers by `model_type`; the first of each pair has a flat config, without a nested one for the text part."""
