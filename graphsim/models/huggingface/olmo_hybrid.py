"""Olmo Hybrid: the gated delta rule in three of four layers, attention with output norms in the fourth."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, kinds, pre_norm, read_dims, size, wrapped
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.attention import QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.linear_attention import SplitDeltaNet
from graphsim.models.layers.mlp import Mlp

_BEHIND = ("post_attention_layernorm", "post_feedforward_layernorm")


def olmo_hybrid(fields: Fields, name: str) -> ModelConfig:
    """QK norm over the full projections; head width of the delta rule from the config or the hidden size."""
    dims = read_dims(fields)
    keys = size(fields, "linear_num_key_heads", default=dims.heads)
    values = size(fields, "linear_num_value_heads", default=dims.heads)
    if values % keys:
        fields.problem("linear_num_value_heads", f"is not a multiple of the {keys} key heads")
    key_dim = size(fields, "linear_key_head_dim", default=max(int(0.75 * dims.hidden / keys), 1))
    delta = SplitDeltaNet(
        key_heads=keys,
        value_heads=values,
        key_dim=key_dim,
        value_dim=size(fields, "linear_value_head_dim", default=2 * key_dim),
        taps=size(fields, "linear_conv_kernel_dim", default=4),
    )
    types = kinds(fields, "layer_types", "full_attention", "linear_attention") or [
        "full_attention" if i % 4 == 3 or dims.layers < 4 and i == dims.layers - 1 else "linear_attention"
        for i in range(dims.layers)
    ]
    if len(types) != dims.layers:
        fields.problems.append(f"layer_types has {len(types)} entries, expected one for each of {dims.layers} layers")
    mlp = Mlp(intermediate=dims.intermediate)
    attends = wrapped(attention_of(fields, dims, qk=QkNorm.FULL), mlp, after=_BEHIND)
    blocks: list[Layer] = [attends if kind == "full_attention" else pre_norm(delta, mlp) for kind in types]
    return assemble(name, dims, blocks)


FAMILIES: dict[str, Reader] = {"olmo_hybrid": olmo_hybrid}
"""Readers by `model_type`."""
