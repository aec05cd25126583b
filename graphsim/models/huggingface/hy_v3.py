"""Hy3: norms on heads, a dense first layer, then experts with a shared one."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, read_dims, unused, with_drafts
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import dense_then_sparse
from graphsim.models.layers.attention import QkNorm


def hy_v3(fields: Fields, name: str) -> ModelConfig:
    """DeepSeek's layout of experts behind grouped attention."""
    fields.data = {"first_k_dense_replace": 1, **fields.data}
    dims = read_dims(fields)
    attention = attention_of(fields, dims, qk=QkNorm.HEAD)
    if fields.flag("mlp_bias", False):
        fields.problem("mlp_bias", "is not supported; expected false")
    unused(fields, "qk_norm")
    return with_drafts(assemble(name, dims, dense_then_sparse(fields, dims, attention, adapted=False)), fields)


FAMILIES: dict[str, Reader] = {"hy_v3": hy_v3}
"""Readers by `model_type`."""
