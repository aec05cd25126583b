"""Hybrids of state-space layers and attention: Jamba, Bamba, Falcon-H1, Granite 4, Zamba2."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    Dims,
    Reader,
    assemble,
    indices,
    kinds,
    read_dims,
    size,
    unused,
    wrapped,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import experts_of
from graphsim.models.huggingface.state_space import single
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.shared_transformer import SharedTransformerLayer
from graphsim.models.layers.ssm import Mamba, Mamba2

_JAMBA_NORMS = ("input_layernorm", "pre_ff_layernorm")


def jamba(fields: Fields, name: str) -> ModelConfig:
    """Mamba with attention at regular intervals, experts in every other layer."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    mixer = Mamba(
        width=dims.hidden * size(fields, "mamba_expand", default=2),
        state=size(fields, "mamba_d_state", default=16),
        dt_rank=size(fields, "mamba_dt_rank", default=-(-dims.hidden // 16)),
        taps=size(fields, "mamba_d_conv", default=4),
        bias=fields.flag("mamba_proj_bias", False),
        conv_bias=fields.flag("mamba_conv_bias", True),
        norms=True,
        module="mamba",
    )
    attention = SelfAttention(heads=dims.heads, kv_heads=dims.kv_heads, head_dim=dims.head_dim, rope=False)
    names = {part: f"feed_forward.{part}_proj" for part in ("gate", "up", "down")}
    dense = Mlp(intermediate=dims.intermediate, names=MlpNames(**names))
    moe_names = MoeNames(
        router="feed_forward.router",
        gate_up="feed_forward.experts.gate_up_proj",
        down="feed_forward.experts.down_proj",
    )
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, names=moe_names)
    attends = _periodic(fields, "attn_layer", 8, 4)
    routes = _periodic(fields, "expert_layer", 2, 1)
    blocks: list[Layer] = [
        wrapped(
            attention if i % attends[0] == attends[1] else mixer,
            moe if experts > 1 and i % routes[0] == routes[1] else dense,
            before=_JAMBA_NORMS,
        )
        for i in range(dims.layers)
    ]
    return assemble(name, dims, blocks, norm=NormLayer(name="model.final_layernorm"))


def _periodic(fields: Fields, what: str, period: int, offset: int) -> tuple[int, int]:
    return size(fields, f"{what}_period", default=period), size(fields, f"{what}_offset", default=offset, least=0)


def _mamba2_of(fields: Fields, width: int, module: str, norm: bool = True, bias: str = "mamba_proj_bias") -> Mamba2:
    heads = size(fields, "mamba_n_heads", default=128)
    given = fields.data.get("mamba_d_head")
    if given in ("auto", None) and width % heads:
        fields.problems.append(f"mamba_n_heads = {heads} does not divide the inner width {width}")
    return Mamba2(
        heads=heads,
        head_dim=width // heads if given in ("auto", None) else size(fields, "mamba_d_head"),
        groups=size(fields, "mamba_n_groups", default=1),
        state=size(fields, "mamba_d_state", default=256),
        taps=size(fields, "mamba_d_conv", default=4),
        bias=fields.flag(bias, False),
        conv_bias=fields.flag("mamba_conv_bias", True),
        norm=norm,
        module=module,
    )


def bamba(fields: Fields, name: str) -> ModelConfig:
    """Mamba-2 with attention in the layers of `attn_layer_indices`."""
    dims = read_dims(fields)
    mixer = _mamba2_of(fields, dims.hidden * size(fields, "mamba_expand", default=2), "mamba")
    listed = sorted(indices(fields, "attn_layer_indices")) or [
        i
        for i, kind in enumerate(kinds(fields, "layer_types", "mamba", "linear_attention", "full_attention"))
        if kind == "full_attention"
    ]
    names = {part: f"feed_forward.{part}_proj" for part in ("gate", "up", "down")}
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False), names=MlpNames(**names))
    attention = attention_of(fields, dims)
    blocks: list[Layer] = [
        wrapped(attention if i in listed else mixer, mlp, before=_JAMBA_NORMS) for i in range(dims.layers)
    ]
    return assemble(name, dims, blocks, norm=NormLayer(name="model.final_layernorm"))


def falcon_h1(fields: Fields, name: str) -> ModelConfig:
    """Attention and Mamba-2 in parallel in every layer."""
    dims = read_dims(fields)
    unused(fields, "chunk_size", "mamba_chunk_size")
    width = size(fields, "mamba_d_ssm", default=dims.hidden * size(fields, "mamba_expand", default=2))
    mixer = replace(
        _mamba2_of(fields, width, "mamba", norm=fields.flag("mamba_rms_norm", False)),
        out_bias=fields.flag("projectors_bias", False),
    )
    names = {part: f"feed_forward.{part}_proj" for part in ("gate", "up", "down")}
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False), names=MlpNames(**names))
    first, second = (NormLayer(name=norm) for norm in _JAMBA_NORMS)
    block = Block(
        parts=(
            Residual(
                name="mixer_residual",
                norm=first,
                branches=(Branch(layer=mixer), Branch(layer=attention_of(fields, dims))),
            ),
            Residual(name="mlp_residual", norm=second, branches=(Branch(layer=mlp),)),
        )
    )
    return assemble(name, dims, [block] * dims.layers, norm=NormLayer(name="model.final_layernorm"))


def granite_hybrid(fields: Fields, name: str) -> ModelConfig:
    """Granite 4: Mamba-2 or attention, then a shared MLP, with experts if there are any."""
    dims = read_dims(fields)
    mixer = _mamba2_of(fields, dims.hidden * size(fields, "mamba_expand", default=2), "mamba")
    shared_names = MlpNames(fused="shared_mlp.input_linear", down="shared_mlp.output_linear")
    shared = Mlp(intermediate=size(fields, "shared_intermediate_size", default=1024), names=shared_names)
    count = size(fields, "num_local_experts", default=0, least=0)
    feed: Layer = shared
    if count:
        names = MoeNames(
            router="block_sparse_moe.router",
            gate_up="block_sparse_moe.experts.gate_up_proj",
            down="block_sparse_moe.experts.down_proj",
        )
        experts, chosen = experts_of(fields)
        feed = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, shared=shared, names=names)
    allowed = ("mamba", "linear_attention", "attention", "full_attention")
    types = kinds(fields, "layer_types", *allowed) or kinds(fields, "layers_block_type", *allowed)
    attends = [kind in ("attention", "full_attention") for kind in types] or [False] * dims.layers
    if len(attends) != dims.layers:
        fields.problems.append(f"layer_types has {len(attends)} entries, expected {dims.layers}")
    rotary = fields.text("position_embedding_type", "") == "rope"
    attention = attention_of(fields, dims, rope=rotary)
    both = ("input_layernorm", "post_attention_layernorm")
    blocks: list[Layer] = [wrapped(attention if has else mixer, feed, before=both) for has in attends]
    return assemble(name, dims, blocks)


def zamba2(fields: Fields, name: str) -> ModelConfig:
    """Mamba-2 layers, some preceded by one of a few shared transformers."""
    dims = read_dims(fields, tied=True, mlp_factor=4)
    unused(fields, "chunk_size", "num_query_groups")
    if not dims.tied:
        fields.problem("tie_word_embeddings", "is not supported; the layers' common weights are tied with it")
    types = kinds(fields, "layers_block_type", "mamba", "linear_attention", "hybrid")
    listed = fields.sequence("hybrid_layer_ids", most=MOST_LAYERS)
    hybrid = [kind == "hybrid" for kind in types] if types else [i in listed for i in range(dims.layers)]
    if types and "hybrid_layer_ids" in fields and [i for i, has in enumerate(hybrid) if has] != list(listed):
        fields.problem("hybrid_layer_ids", "does not name the layers that layers_block_type calls 'hybrid'")
    if size(fields, "attention_hidden_size", default=2 * dims.hidden) != 2 * dims.hidden:
        fields.problem("attention_hidden_size", f"is not allowed; expected twice the hidden size, {2 * dims.hidden}")
    if len(hybrid) != dims.layers:
        fields.problems.append(f"layers_block_type has {len(hybrid)} entries, expected {dims.layers}")
    plain, inner = _zamba_mamba(fields, dims, "mamba"), _zamba_mamba(fields, dims, "mamba_decoder.mamba")
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=size(fields, "attention_head_dim", default=2 * dims.hidden // dims.heads),
        rope=fields.flag("use_mem_rope", False),
    )
    sets, rank = size(fields, "num_mem_blocks", default=1), size(fields, "adapter_rank", default=128)
    blocks, used = list[Layer](), 0
    for has in hybrid:
        shared = SharedTransformerLayer(
            attention=attention,
            intermediate=dims.intermediate,
            bias=fields.flag("add_bias_linear", False),
            adapter_rank=rank,
            mamba=inner,
            owns=used < sets,
            attention_pairs=fields.flag("use_shared_attention_adapter", False),
            idle_pairs=-(-(sum(hybrid) - used % sets) // sets) - 1,
        )
        blocks.append(shared if has else single(plain, "input_layernorm"))
        used += has
    return assemble(name, dims, blocks, norm=NormLayer(name="model.final_layernorm"))


def _zamba_mamba(fields: Fields, dims: Dims, module: str) -> Mamba2:
    width = dims.hidden * size(fields, "mamba_expand", default=2)
    heads = size(fields, "n_mamba_heads", default=8)
    head_dim = size(fields, "mamba_headdim", default=max(width // heads, 1))
    if heads * head_dim != width:
        found = f"n_mamba_heads x mamba_headdim = {heads} x {head_dim}"
        fields.problems.append(f"{found} is not mamba_expand x hidden_size = {width}")
    unused(fields, "use_conv_bias")
    return Mamba2(
        heads=heads,
        head_dim=head_dim,
        groups=size(fields, "mamba_ngroups", default=1),
        state=size(fields, "mamba_d_state", default=64),
        taps=size(fields, "mamba_d_conv", default=4),
        bias=fields.flag("add_bias_linear", False),
        module=module,
    )


FAMILIES: dict[str, Reader] = {
    "jamba": jamba,
    "bamba": bamba,
    "falcon_h1": falcon_h1,
    "granitemoehybrid": granite_hybrid,
    "zamba2": zamba2,
}
"""Readers by `model_type`."""
