"""Models derived from Llama by neural architecture search: Llama-Nemotron 51B, 49B and 253B, DeciLM (arXiv 2411.19146).

The number of key heads and the MLP's width differ by layer; either may be a linear layer or missing. Names as in
`modeling_decilm.py` of nvidia/Llama-3_3-Nemotron-Super-49B-v1; vLLM 0.33, `model_executor/models/nemotron_nas.py`.
"""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST, MOST_LAYERS, Dims, Reader, assemble, pre_norm, read_dims, size
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.linear import LinearLayer
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer


def nemotron_nas(fields: Fields, name: str) -> ModelConfig:
    """Layers as listed in `block_configs`, or with key heads from `num_key_value_heads_per_layer` (DeciLM-7B)."""
    listed = fields.sequence("block_configs", most=MOST_LAYERS)
    if not listed:
        return _deci(fields, name)
    given = {"intermediate_size": 1, "num_key_value_heads": 1}  # set per layer; these two are null
    fields.data = {**fields.data, **{key: fields.data.get(key) or value for key, value in given.items()}}
    dims = read_dims(fields)
    if len(listed) != dims.layers:
        fields.problems.append(
            f"block_configs has {len(listed)} entries, expected one for each of {dims.layers} layers"
        )
    common = _Common(fields, dims)
    return assemble(name, dims, [common.block(entry, f"block_configs[{i}]") for i, entry in enumerate(listed)])


class _Common:
    """Builds layers from their entries and common dimensions; equal entries are read once."""

    def __init__(self, fields: Fields, dims: Dims) -> None:
        self.fields, self.dims = fields, dims
        self.attention = attention_of(fields, dims)
        self.mlp_bias = fields.flag("mlp_bias", False)
        self.made: dict[str, Block] = {}

    def block(self, entry: object, path: str) -> Layer:
        """Attention and MLP, each after a norm, unless missing."""
        key = repr(entry)
        if key not in self.made:
            fields = self.fields.child(entry, path)
            parts = (
                ("attn_residual", "input_layernorm", self._attention(fields.mapping("attention", required=True))),
                ("mlp_residual", "post_attention_layernorm", self._feed(fields.mapping("ffn", required=True))),
            )
            self.made[key] = Block(
                parts=tuple(
                    Residual(name=label, norm=NormLayer(name=norm), branches=(Branch(layer=layer),))
                    for label, norm, layer in parts
                    if layer is not None
                )
            )
        return self.made[key]

    def _attention(self, fields: Fields) -> Layer | None:
        for key in ("mamba", "is_mamba", "llama4", "sparsify", "num_sink_tokens"):
            if fields.raw(key):
                fields.problem(key, "is not simulated; expected null")
        fields.raw("unshifted_sink")
        fields.raw("use_prefill_window_in_sink_attention")
        shares = size(fields, "n_heads_in_group", default=0, least=0)
        heads = size(fields, "num_key_value_heads", default=0, least=0)
        window = size(fields, "window_length", default=0, least=0)
        if fields.flag("no_op", False):
            return None
        if fields.flag("replace_with_linear", False):
            return LinearLayer(name="self_attn.linear_attn", bias=self.attention.qkv_bias, tags=("attn",))
        if shares and self.dims.heads % shares or heads and self.dims.heads % heads:
            key = "n_heads_in_group" if shares else "num_key_value_heads"
            fields.problem(key, f"does not divide the {self.dims.heads} attention heads")
        if not shares and not heads:
            fields.problem("n_heads_in_group", "is missing; expected how many query heads share a key head")
        return replace(self.attention, kv_heads=heads or max(self.dims.heads // (shares or 1), 1), window=window)

    def _feed(self, fields: Fields) -> Layer | None:
        for key in ("moe", "sparsify"):
            if fields.raw(key):
                fields.problem(key, "is not simulated; expected null")
        fields.raw("hidden_act")
        factor = fields.number("ffn_mult", 0.0)
        given = size(fields, "intermediate_size", default=0, least=0)
        if fields.flag("no_op", False):
            return None
        if fields.flag("replace_with_linear", False):
            return LinearLayer(name="mlp.linear_mlp", tags=("ffn",))
        if not given and not 0.0 < factor * self.dims.hidden < MOST:
            fields.problem("ffn_mult", "is not allowed; expected a factor above 0 of the hidden size")
            factor = 1.0
        return Mlp(intermediate=given or _width(factor, self.dims.hidden), bias=self.mlp_bias)


def _width(factor: float, hidden: int) -> int:
    """The MLP's width: two thirds of the factor times the hidden size, rounded up to a multiple of 256."""
    return -(-max(int(2 * factor * hidden / 3), 1) // 256) * 256


def _deci(fields: Fields, name: str) -> ModelConfig:
    listed = fields.sequence("num_key_value_heads_per_layer", most=MOST_LAYERS)
    fields.data = {**fields.data, "num_key_value_heads": fields.data.get("num_key_value_heads") or 1}
    dims = read_dims(fields)
    good = [heads for heads in listed if type(heads) is int and 0 < heads <= dims.heads and dims.heads % heads == 0]
    if len(good) != dims.layers:
        text = (
            f"is not allowed; expected for each of {dims.layers} layers a divisor of the {dims.heads} attention heads"
        )
        fields.problem("num_key_value_heads_per_layer", text)
    attention, mlp = (
        attention_of(fields, dims),
        Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False)),
    )
    return assemble(name, dims, [pre_norm(replace(attention, kv_heads=heads), mlp) for heads in good])


FAMILIES: dict[str, Reader] = {"nemotron-nas": nemotron_nas, "deci": nemotron_nas}
"""Readers by `model_type`."""
