"""The language model of Moshi (arXiv 2410.00037, section 3.2), without its audio codec and depth transformer."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, pre_norm, read_dims, self_attention, size, unused
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer


def moshi(fields: Fields, name: str) -> ModelConfig:
    """Llama with linear layers in submodules, fused gate and up of half the given width, and an extra embedding."""
    if "MoshiForConditionalGeneration" in fields.sequence("architectures"):
        fields.problem("architectures", "is not simulated; expected MoshiForCausalLM, the language model alone")
    unused(fields, "audio_encoder_config", "depth_decoder_config", "audio_vocab_size", "num_codebooks")
    dims = read_dims(fields)
    if dims.intermediate % 2:
        fields.problem("ffn_dim", "is not allowed; expected an even number, half of it for the gate")
    names = AttentionNames(**{part: f"self_attn.{part}_proj.linear" for part in "qkvo"})
    attention = self_attention(dims, window=size(fields, "sliding_window", default=0, least=0), names=names)
    mlp = Mlp(intermediate=max(dims.intermediate // 2, 1), names=MlpNames(fused="mlp.fc1", down="mlp.fc2"))
    return assemble(
        name,
        dims,
        [pre_norm(attention, mlp)] * dims.layers,
        stem=Stem(vocab_size=dims.vocab + 1),
        head=Head(vocab_size=dims.vocab, norm=NormLayer(name="model.norm")),
    )


FAMILIES: dict[str, Reader] = {"moshi": moshi}
"""Readers by `model_type`."""
