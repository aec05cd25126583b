"""Zamba (1): Mamba layers that share one transformer."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Reader, assemble, read_dims, size, unused
from graphsim.models.huggingface.state_space import single
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.shared_attention import HeadedMamba, SharedAttentionLayer


def zamba(fields: Fields, name: str) -> ModelConfig:
    """Mamba layers, some preceded by a shared transformer of twice the width.

    The transformer reads the residual stream concatenated with the embedding. If the output head is not tied,
    transformers 5.24 does not share the transformer between layers either.
    """
    unused(fields, "use_mamba_kernels", "use_associative_scan", "num_logits_to_keep", "hidden_mamba_act")
    dims = read_dims(fields, tied=True)
    wide = size(fields, "attention_hidden_size", default=2 * dims.hidden)
    if wide != 2 * dims.hidden:
        fields.problem("attention_hidden_size", f"is not allowed; expected twice the hidden size, {2 * dims.hidden}")
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=size(fields, "attention_head_dim", default=max(wide // dims.heads, 1)),
        rope=False,
    )
    plain, inner = (_mamba(fields, dims.hidden, module) for module in ("mamba", "mamba_decoder.mamba"))
    hybrid = _hybrid(fields, dims.layers)
    first = hybrid.index(True) if True in hybrid else 0
    blocks: list[Layer] = []
    for i, has in enumerate(hybrid):
        shared = SharedAttentionLayer(
            attention=attention,
            intermediate=dims.intermediate,
            adapter_rank=0,
            mamba=inner,
            owns=not dims.tied or i == first,
        )
        blocks.append(shared if has else single(plain, "input_layernorm"))
    return assemble(name, dims, blocks, norm=NormLayer(name="model.final_layernorm"))


def _mamba(fields: Fields, hidden: int, module: str) -> HeadedMamba:
    width, heads = hidden * size(fields, "mamba_expand", default=2), size(fields, "n_mamba_heads", default=2)
    if width % heads:
        fields.problem("n_mamba_heads", f"does not divide the inner width {width}")
    automatic = fields.data.get("mamba_dt_rank") in ("auto", None)
    return HeadedMamba(
        heads=heads,
        width=width,
        state=size(fields, "mamba_d_state", default=16),
        dt_rank=-(-hidden // 16) if automatic else size(fields, "mamba_dt_rank"),
        taps=size(fields, "mamba_d_conv", default=4),
        bias=fields.flag("mamba_proj_bias", False),
        conv_bias=fields.flag("mamba_conv_bias", True),
        module=module,
    )


def _hybrid(fields: Fields, layers: int) -> list[bool]:
    """Which layers have the transformer: by `layers_block_type`, else the third and then at regular intervals."""
    period = size(fields, "attn_layer_period", default=6)
    offset = size(fields, "attn_layer_offset", default=4, least=0)
    kinds = [str(kind) for kind in fields.sequence("layers_block_type", most=MOST_LAYERS)]
    if not kinds:
        return [i == 2 or i > 2 and (i - 3) % period == offset for i in range(layers)]
    unknown = sorted(set(kinds) - {"mamba", "linear_attention", "hybrid"})
    if unknown or len(kinds) != layers:
        expected = f"expected 'hybrid' or 'linear_attention' for each of {layers} layers"
        fields.problem("layers_block_type", f"is not allowed; {expected}")
        return [False] * layers
    return [kind == "hybrid" for kind in kinds]


FAMILIES: dict[str, Reader] = {"zamba": zamba}
"""Readers by `model_type`."""
