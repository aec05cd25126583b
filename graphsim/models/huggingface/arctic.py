"""Snowflake Arctic: a dense transformer with a mixture of experts in parallel with each block."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, pre_norm, read_dims, self_attention, size
from graphsim.models.huggingface.moe import MIXTRAL_NAMES, experts_of
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Branch, Residual
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.residual_experts import ResidualExperts


def arctic(fields: Fields, name: str) -> ModelConfig:
    """Experts at regular intervals, in parallel with an MLP as wide as the residual stream (vLLM, `arctic.py`)."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    names = MoeNames(
        router="block_sparse_moe.gate",
        gate_up="block_sparse_moe.experts.gate_up_proj",
        down="block_sparse_moe.experts.down_proj",
        experts=MIXTRAL_NAMES.experts,
    )
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        adapt_experts=True,
        adapt_router=True,
        separate=True,
        names=names,
    )
    attention = self_attention(dims)
    dense = Mlp(intermediate=dims.intermediate, names=_w_names("block_sparse_moe.mlp"))
    sparse: Layer = pre_norm(attention, moe)
    if fields.flag("use_residual", True):
        first, second, third = (NormLayer(name=f"{part}_layernorm") for part in ("input", "residual", "post_attention"))
        sparse = ResidualExperts(
            attention=Residual(name="attn_residual", norm=first, branches=(Branch(layer=attention),)),
            mlp=Branch(layer=Mlp(intermediate=dims.hidden, names=_w_names("residual_mlp")), norm=second),
            experts=Branch(layer=moe, norm=third),
        )
    every = size(fields, "moe_layer_frequency", default=2)
    blocks = [sparse if (i + 1) % every == 0 else pre_norm(attention, dense) for i in range(dims.layers)]
    return assemble(name, dims, blocks)


def _w_names(module: str) -> MlpNames:
    return MlpNames(gate=f"{module}.w1", up=f"{module}.w3", down=f"{module}.w2")


FAMILIES: dict[str, Reader] = {"arctic": arctic}
"""Readers by `model_type`."""
