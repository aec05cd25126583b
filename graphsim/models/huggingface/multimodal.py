"""Text parts of multimodal models that are those of a text model under another name."""

from __future__ import annotations

from graphsim.models.huggingface.common import Reader
from graphsim.models.huggingface.llama import qwen2, qwen3
from graphsim.models.huggingface.moe import qwen_moe

FAMILIES: dict[str, Reader] = {
    "qwen2_vl": qwen2,
    "qwen2_vl_text": qwen2,
    "qwen2_5_vl": qwen2,
    "qwen2_5_vl_text": qwen2,
    "qwen3_vl_text": qwen3,
    "qwen3_vl_moe_text": qwen_moe,
}
"""Readers by `model_type`; the first of each pair are flat configs, whose text part has no config of its own."""
