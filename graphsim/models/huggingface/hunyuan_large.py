"""Hunyuan-Large and smaller models with its code: layers that share the keys and values of the previous layer."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Dims, Reader, assemble, pre_norm, read_dims, size
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import experts_of, shared_mlp
from graphsim.models.huggingface.moe_shared import one_of_all
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe, MoeNames


def hunyuan(fields: Fields, name: str) -> ModelConfig:
    """Cross-layer attention (arXiv 2411.02265, section 2.2): only the first layer of each group has keys and values.

    The others normalise the shared keys again, with their own weights (vLLM, `models/hunyuan_v1.py`).
    """
    one_of_all(fields, "num_experts", "moe_topk", "num_shared_expert")
    dims = read_dims(fields, tied=True)
    names = AttentionNames(q_norm="self_attn.query_layernorm", k_norm="self_attn.key_layernorm")
    normed = fields.flag("use_qk_norm", False)
    own = replace(attention_of(fields, dims, qk=QkNorm.HEAD if normed else QkNorm.NONE), names=names)
    borrowed = replace(own, shares_kv=True, norm_vectors=2)
    group = size(fields, "cla_share_factor", default=1) if fields.flag("use_cla", False) else 1
    feed = _feed(fields, dims)
    return assemble(name, dims, [pre_norm(borrowed if i % group else own, feed) for i in range(dims.layers)])


def _feed(fields: Fields, dims: Dims) -> Layer:
    bias = fields.flag("mlp_bias", False)
    if fields.raw("num_experts", 1) == 1:
        return Mlp(intermediate=dims.intermediate, bias=bias)
    if bias:
        fields.problem("mlp_bias", "is not supported for experts; expected false")
    experts, chosen = experts_of(fields)
    count = size(fields, "num_shared_expert", default=1, most=1000)
    mixed = fields.flag("use_mixed_mlp_moe", False)
    return Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        shared=shared_mlp(dims.intermediate * count, "mlp.shared_mlp", linear=True) if mixed else None,
        adapt_experts=True,
        adapt_router=True,
        separate=True,
        names=MoeNames(router="mlp.gate.wg"),
    )


FAMILIES: dict[str, Reader] = {"hunyuan": hunyuan}
"""Readers by `model_type`."""
