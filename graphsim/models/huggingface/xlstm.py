"""xLSTM-7B: matrix memories instead of attention."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST, MOST_LAYERS, Dims, Reader, assemble, size, unused, wrapped
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.mlstm import MatrixMemory
from graphsim.models.layers.norm import NormLayer


def xlstm(fields: Fields, name: str) -> ModelConfig:
    """A matrix memory, then a gated MLP; a soft cap on the logits, and a head that is never tied."""
    unused(fields, "add_out_norm", "gate_soft_cap", "output_logit_soft_cap", "mode", "chunk_size", "return_last_states")
    unused(fields, "chunkwise_kernel", "sequence_kernel", "step_kernel", "max_inference_chunksize")
    unused(fields, "norm_reduction_force_float32", "tie_word_embeddings", "autocast_kernel_dtype")
    unused(fields, "inference_state_dtype")
    hidden, heads = size(fields, "hidden_size", "embedding_dim"), size(fields, "num_heads", default=8)
    layers = size(fields, "num_hidden_layers", "num_blocks", most=MOST_LAYERS)
    for key, value in (("embedding_dim", hidden), ("num_blocks", layers)):
        if size(fields, key, default=value) != value:
            fields.problem(key, f"is not allowed; expected {value}, as its newer spelling says")
    bias = fields.flag("use_bias", False)
    fused = fields.text("weight_mode", "single", choices=("single", "fused")) == "fused"
    widths = [_width(fields, key, factor, hidden) for key, factor in (("qk_dim_factor", 0.5), ("v_dim_factor", 1.0))]
    if any(width % heads for width in widths):
        fields.problem("num_heads", f"does not divide keys and values that are {widths[0]} and {widths[1]} wide")
    multiple = size(fields, "ffn_round_up_to_multiple_of", default=64)
    inner = _width(fields, "ffn_proj_factor", 2.667, hidden, multiple)
    memory = MatrixMemory(heads=heads, key_width=widths[0], value_width=widths[1], bias=bias, fused=fused)
    names = MlpNames(
        gate="ffn.proj_up_gate", up="ffn.proj_up", down="ffn.proj_down", fused="ffn.proj_up_gate_z" if fused else ""
    )
    dims = Dims(
        hidden=hidden,
        layers=layers,
        heads=1,
        kv_heads=1,
        head_dim=hidden,
        intermediate=inner,
        vocab=size(fields, "vocab_size"),
        positions=0,
        tied=False,
    )
    mlp = Mlp(intermediate=inner, bias=bias, names=names)
    block = wrapped(memory, mlp, "layer" if bias else "rms", before=("norm_mlstm", "norm_ffn"))
    return assemble(
        name,
        dims,
        [block] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="backbone.embeddings"),
        head=Head(vocab_size=dims.vocab, soft_cap=True, norm=NormLayer(name="backbone.out_norm")),
        prefix="backbone.blocks.{}.",
    )


def _width(fields: Fields, key: str, default: float, hidden: int, multiple: int = 1) -> int:
    """A factor times the hidden size, rounded up to a multiple (transformers, `round_up_to_next_multiple_of`)."""
    factor = fields.number(key, default)
    if not 1.0 <= factor * hidden < MOST:
        fields.problem(key, "is not allowed; expected a factor above 0 of the hidden size")
        return multiple
    return int((factor * hidden + multiple - 1) // multiple * multiple)


FAMILIES: dict[str, Reader] = {"xlstm": xlstm}
"""Readers by `model_type`."""
