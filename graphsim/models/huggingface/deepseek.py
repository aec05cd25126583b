"""DeepSeek V2 and V3 and their kin (Kimi K2, GLM-5): latent attention, dense layers first, then experts."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, read_dims, size
from graphsim.models.huggingface.moe import dense_then_sparse
from graphsim.models.layers.mla import Indexer, LatentAttention


def deepseek(fields: Fields, name: str) -> ModelConfig:
    """Latent attention, with an indexer where the config describes one."""
    dims = read_dims(fields, floor=True)
    indexer = None
    if "index_topk" in fields:
        indexer = Indexer(
            heads=size(fields, "index_n_heads"),
            head_dim=size(fields, "index_head_dim"),
            chosen=size(fields, "index_topk"),
        )
    attention = LatentAttention(
        heads=dims.heads,
        q_rank=size(fields, "q_lora_rank", default=0),
        kv_rank=size(fields, "kv_lora_rank"),
        nope=size(fields, "qk_nope_head_dim"),
        rope=size(fields, "qk_rope_head_dim"),
        value_dim=size(fields, "v_head_dim"),
        bias=fields.flag("attention_bias", False),
        indexer=indexer,
    )
    kind = fields.data.get("model_type")
    bias = kind == "deepseek_v2" and fields.flag("mlp_bias", False)
    first = 1 if kind in ("glm4_moe_lite", "sarvam_mla") else 0
    return assemble(name, dims, dense_then_sparse(fields, dims, attention, first=first, bias=bias))


FAMILIES: dict[str, Reader] = {
    "deepseek_v2": deepseek,
    "deepseek_v3": deepseek,
    "deepseek_v32": deepseek,
    "kimi_k2": deepseek,
    "glm_moe_dsa": deepseek,
    "glm4_moe_lite": deepseek,
    "sarvam_mla": deepseek,
}
"""Readers by `model_type`."""
