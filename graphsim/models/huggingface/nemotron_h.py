"""Nemotron-H and Nemotron 3: each layer is Mamba-2, attention, a plain MLP or experts, some in a latent space."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Dims, Reader, read_dims, size, unused, with_drafts
from graphsim.models.huggingface.moe import experts_of
from graphsim.models.huggingface.state_space import backbone, single
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.ssm import Mamba2
from graphsim.units import bounds_text, short

_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_NAMES = {"linear_attention": "mamba", "full_attention": "attention"}


def nemotron_h(fields: Fields, name: str) -> ModelConfig:
    """Layers by a pattern of letters or a list of names, whose length is the number of layers."""
    listed = _listed(fields)
    fields.raw("num_hidden_layers")
    fields.data = {**fields.data, "num_hidden_layers": len(listed)}
    dims = read_dims(fields, ties=False)
    unused(fields, "chunk_size", "time_step_rank", "expand")
    kinds: dict[str, Layer] = {
        "mamba": _mamba(fields),
        "attention": _attention(fields, dims),
        "mlp": _mlp(fields, dims.intermediate, "mixer"),
        "moe": _moe(fields, dims),
    }
    unknown = sorted(set(listed) - set(kinds))
    if unknown:
        named = ("layers_block_type", "layer_types", "hybrid_override_pattern")
        key = next((key for key in named if key in fields), named[0])
        fields.problems.append(f"{key} has an entry {short(unknown[0])}; allowed: {', '.join(sorted(kinds))}")
    blocks: list[Layer] = [single(kinds.get(kind, kinds["mlp"])) for kind in listed]
    unused(fields, "attention_bias", "mamba_proj_bias", "expand", "mamba_expand", "n_shared_experts", "sliding_window")
    unused(fields, "mtp_layers_block_type", "mtp_hybrid_override_pattern", "residual_in_fp32")
    return with_drafts(backbone(name, dims, blocks, "model", "embeddings", "norm_f"), fields)


def _listed(fields: Fields) -> list[str]:
    """The kind of each layer; a list takes precedence over a pattern of letters."""
    names = [
        str(kind)
        for key in ("layers_block_type", "layer_types")
        for kind in fields.sequence(key, most=MOST_LAYERS)
        if key == "layers_block_type" or "layers_block_type" not in fields
    ]
    pattern = fields.text("hybrid_override_pattern", "")
    letters = [_LETTERS.get(letter, letter) for letter in pattern if letter != "|"]
    listed = [_NAMES.get(kind, kind) for kind in names] or letters or ["mamba", "moe", "attention", "mlp"]
    if len(listed) > MOST_LAYERS:
        fields.problems.append(
            f"hybrid_override_pattern names {len(listed)} layers, expected a number {bounds_text(1, MOST_LAYERS)}"
        )
        return ["mlp"]
    return listed


def _mamba(fields: Fields) -> Layer:
    return Mamba2(
        heads=size(fields, "mamba_num_heads", default=128),
        head_dim=size(fields, "mamba_head_dim", default=64),
        groups=size(fields, "mamba_n_groups", "n_groups", default=8),
        state=size(fields, "ssm_state_size", default=128),
        taps=size(fields, "mamba_d_conv", "conv_kernel", default=4),
        bias=fields.flag("use_bias", False),
        conv_bias=fields.flag("mamba_conv_bias", fields.flag("use_conv_bias", True)),
    )


def _attention(fields: Fields, dims: Dims) -> Layer:
    """Attention without biases, regardless of `attention_bias` (transformers 5.24, `NemotronHAttention`)."""
    return SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=size(fields, "head_dim", "attention_head_dim", default=128),
        rope=False,
        names=AttentionNames(q="mixer.q_proj", k="mixer.k_proj", v="mixer.v_proj", o="mixer.o_proj"),
    )


def _mlp(fields: Fields, width: int, module: str) -> Mlp:
    names = MlpNames(up=f"{module}.up_proj", down=f"{module}.down_proj")
    return Mlp(intermediate=width, gated=False, bias=fields.flag("mlp_bias", False), names=names)


def _moe(fields: Fields, dims: Dims) -> Layer:
    """Plain experts, in a latent space if `moe_latent_size` is given; a shared expert at full width."""
    experts, chosen = experts_of(fields)
    shared = size(fields, "moe_shared_expert_intermediate_size", default=dims.intermediate)
    return Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size", default=dims.intermediate),
        gated=False,
        latent=size(fields, "moe_latent_size", default=0, least=0),
        latent_bias=fields.flag("mlp_bias", False),
        shared=_mlp(fields, shared, "mixer.shared_experts"),
        names=MoeNames(
            router="mixer.gate",
            gate_up="mixer.experts.up_proj",
            down="mixer.experts.down_proj",
            latent=("mixer.fc1_latent_proj", "mixer.fc2_latent_proj"),
        ),
    )


FAMILIES: dict[str, Reader] = {"nemotron_h": nemotron_h}
"""Readers by `model_type`."""
