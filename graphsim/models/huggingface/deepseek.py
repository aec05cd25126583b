"""DeepSeek V2 and V3 and similar models (Kimi K2, GLM-5, Mistral 4): latent attention, dense layers, then experts."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    Dims,
    Reader,
    assemble,
    read_dims,
    size,
    unused,
    with_drafts,
)
from graphsim.models.huggingface.moe import dense_then_sparse
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Residual
from graphsim.models.layers.indexer import Indexer
from graphsim.models.layers.mla import LatentAttention
from graphsim.models.layers.moe import Moe
from graphsim.models.layers.norm import NormLayer


def latent_attention(fields: Fields, dims: Dims, rope: int | None = None) -> LatentAttention:
    """Latent attention, with an indexer if the config has one.

    rope: number of rotary dimensions, if not in the config
    """
    unused(fields, "qk_head_dim")
    if size(fields, "moe_layer_freq", default=1) != 1:
        fields.problem("moe_layer_freq", "is not allowed; expected 1: experts in every layer after the dense ones")
    indexer = None
    if "index_topk" in fields:
        unused(fields, "layer_types")
        indexer = Indexer(
            heads=size(fields, "index_n_heads"),
            head_dim=size(fields, "index_head_dim"),
            chosen=size(fields, "index_topk"),
        )
    return LatentAttention(
        heads=dims.heads,
        q_rank=size(fields, "q_lora_rank", default=0),
        kv_rank=size(fields, "kv_lora_rank"),
        nope=size(fields, "qk_nope_head_dim"),
        rope=size(fields, "qk_rope_head_dim") if rope is None else rope,
        value_dim=size(fields, "v_head_dim", default=max(dims.hidden // dims.heads, 1)),
        bias=fields.flag("attention_bias", False),
        indexer=indexer,
    )


def _dims(fields: Fields) -> Dims:
    """The dimensions; the number of key heads is irrelevant, as all share one latent."""
    unused(fields, "num_key_value_heads")
    return read_dims(fields, floor=True, kv_heads=1)


def deepseek(fields: Fields, name: str) -> ModelConfig:
    """Latent attention, with a dense MLP in the first layers and experts in the others."""
    dims = _dims(fields)
    kind = fields.data.get("model_type")
    bias = kind == "deepseek_v2" and fields.flag("mlp_bias", False)
    first = 1 if kind in ("glm4_moe_lite", "sarvam_mla") else 0
    blocks = dense_then_sparse(fields, dims, latent_attention(fields, dims), first=first, bias=bias)
    return assemble(name, dims, blocks)


def glm_dsa(fields: Fields, name: str) -> ModelConfig:
    """GLM-5: like DeepSeek, but layers may share the selection of an earlier layer's indexer."""
    dims = read_dims(fields, floor=True)
    full = latent_attention(fields, dims)
    shares = [replace(full, reuses=shared) for shared in shared_indexers(fields, dims.layers)]
    return with_drafts(assemble(name, dims, dense_then_sparse(fields, dims, shares)), fields)


def shared_indexers(fields: Fields, layers: int) -> list[bool]:
    """Which layers share an earlier layer's selection: by name, by letters, or at regular intervals from an offset."""
    types = [str(kind) for kind in fields.sequence("indexer_types", most=MOST_LAYERS)]
    pattern = fields.raw("index_topk_pattern", [])
    every = size(fields, "index_topk_freq", default=1)
    offset = size(fields, "index_skip_topk_offset", default=2, least=0)
    if not types and isinstance(pattern, str | list | tuple):
        types = [{"F": "full", "S": "shared"}.get(str(entry), str(entry)) for entry in pattern]
    types = types or ["shared" if max(i - offset + 1, 0) % every else "full" for i in range(layers)]
    if len(types) != layers or not set(types) <= {"full", "shared"}:
        fields.problems.append(f"indexer_types does not say 'full' or 'shared' for each of {layers} layers")
        return [False] * layers
    if types[0] == "shared":
        fields.problems.append("indexer_types lets the first layer share an indexer, but there is none before it")
    return [kind == "shared" for kind in types]


def mistral4(fields: Fields, name: str) -> ModelConfig:
    """Like DeepSeek, but PEFT's all-linear does not include the experts."""
    dims = _dims(fields)
    return assemble(name, dims, dense_then_sparse(fields, dims, latent_attention(fields, dims), adapted=False))


def axk1(fields: Fields, name: str) -> ModelConfig:
    """A.X K1: one dense layer by default, and a norm after the experts of every layer."""
    dims = _dims(fields)
    blocks = dense_then_sparse(fields, dims, latent_attention(fields, dims), first=1, adapted=False)
    return assemble(name, dims, [_normed(block) for block in blocks])


def _normed(block: Layer) -> Layer:
    """The block with a norm on the experts' output."""
    first, second = block.parts if isinstance(block, Block) else (None, None)
    if not isinstance(second, Residual) or first is None or not isinstance(second.branches[0].layer, Moe):
        return block
    return Block(parts=(first, replace(second, post_norm=NormLayer(name="mlp.post_mlp_layernorm"))))


FAMILIES: dict[str, Reader] = {
    "deepseek_v2": deepseek,
    "deepseek_v3": deepseek,
    "deepseek_v32": deepseek,
    "kimi_k2": deepseek,
    "glm_moe_dsa": glm_dsa,
    "glm4_moe_lite": deepseek,
    "mistral4": mistral4,
    "axk1": axk1,
    "sarvam_mla": deepseek,
}
"""Readers by `model_type`."""
