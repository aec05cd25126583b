"""Inkling's language model: relative position biases, short convolutions, shared experts weighted by the router."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Dims,
    Reader,
    assemble,
    indices,
    kinds,
    per_layer,
    pre_norm,
    read_dims,
    size,
    unused,
    with_drafts,
)
from graphsim.models.huggingface.moe import experts_of, shared_mlp
from graphsim.models.layers.attention import QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Stem
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.relative_attention import Convolved, RelativeAttention


def inkling(fields: Fields, name: str) -> ModelConfig:
    """With `dense_intermediate_size`, `intermediate_size` is the width of the experts (transformers 5.24)."""
    dense = fields.raw("dense_intermediate_size")
    if dense is not None:
        moved = {"intermediate_size": dense, "moe_intermediate_size": fields.data.get("intermediate_size")}
        fields.data = {**fields.data, **moved}
    dims = read_dims(fields, ties=False)
    taps = size(fields, "sconv_kernel_size", "conv_kernel_size", default=4)
    full, windowed = _attention(fields, dims, taps), _windowed(fields, dims, taps)
    moe, mlp = _moe(fields), Mlp(intermediate=dims.intermediate, learned=1)
    slides, sparse = _slides(fields, dims.layers), _sparse(fields, dims.layers)
    blocks: list[Layer] = [
        pre_norm(
            Convolved(layer=windowed if slide else full, name="attn_sconv", taps=taps),
            Convolved(layer=moe if has else mlp, name="mlp_sconv", taps=taps),
        )
        for slide, has in zip(slides, sparse, strict=False)
    ]
    unused(
        fields,
        "rms_norm_eps_moe_gate",
        "logits_mup_width_multiplier",
        "unpadded_vocab_size",
        "shared_expert_sink",
        "log_scaling_n_floor",
        "number_of_conv_states",
    )
    unused(fields, "mtp_local_layer_ids", "mtp_hidden_states_first", "chain_hidden_post_norm")
    stem = Stem(vocab_size=dims.vocab, norm=NormLayer(name="model.embed_tokens.embed_norm"))
    return with_drafts(assemble(name, dims, blocks, stem=stem), fields, "num_mtp_layers")


def _attention(fields: Fields, dims: Dims, taps: int) -> RelativeAttention:
    return RelativeAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qk_norm=QkNorm.HEAD,
        relative=size(fields, "d_rel", default=16),
        extent=size(fields, "rel_extent", default=1024),
        taps=taps,
    )


def _windowed(fields: Fields, dims: Dims, taps: int) -> RelativeAttention:
    """Attention of windowed layers, with separate head sizes; the window equals the extent of the bias."""
    window = size(fields, "sliding_window_size", default=512)
    heads = size(fields, "swa_num_attention_heads", default=dims.heads)
    kv_heads = size(fields, "swa_num_key_value_heads", default=dims.kv_heads)
    if heads % kv_heads:
        fields.problem("swa_num_key_value_heads", f"does not divide the {heads} attention heads")
    return RelativeAttention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size(fields, "swa_head_dim", default=dims.head_dim),
        window=window,
        qk_norm=QkNorm.HEAD,
        relative=size(fields, "d_rel", default=16),
        extent=window,
        taps=taps,
    )


def _moe(fields: Fields) -> Moe:
    experts, chosen = experts_of(fields)
    width, shared = size(fields, "moe_intermediate_size"), size(fields, "n_shared_experts", default=2, most=1000)
    return Moe(
        experts=experts,
        chosen=chosen,
        intermediate=width,
        shared=shared_mlp(width * shared, linear=False),
        router_extra=shared,
        router_scale=True,
    )


def _slides(fields: Fields, layers: int) -> list[bool]:
    types = kinds(fields, "layer_types", "hybrid", "hybrid_sliding")
    local = indices(fields, "local_layer_ids")
    if types and len(types) != layers:
        fields.problems.append(f"layer_types has {len(types)} entries, expected one for each of {layers} layers")
    if types:
        return [kind == "hybrid_sliding" for kind in types]
    return [i in local if "local_layer_ids" in fields else (i + 1) % 6 != 0 for i in range(layers)]


def _sparse(fields: Fields, layers: int) -> list[bool]:
    dense = size(fields, "dense_mlp_idx", default=0, least=0)
    allowed = ("dense", "sparse")
    listed = per_layer(fields, "mlp_layer_types", layers, allowed, lambda i: "sparse" if i >= dense else "dense")
    return [kind == "sparse" for kind in listed]


FAMILIES: dict[str, Reader] = {"inkling_text": inkling}
"""Readers by `model_type`."""
