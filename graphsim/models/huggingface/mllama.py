"""Llama 3.2 Vision's language model: Llama with layers that cross-attend to an image (arXiv 2407.21783, section 7)."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Reader, assemble, pre_norm, read_dims, self_attention
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Branch, Residual
from graphsim.models.layers.cross_attention import CrossAttention
from graphsim.models.layers.ends import Stem
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.scale import Scale
from graphsim.models.layers.seeing_block import SeeingBlock

MARKS = 8
"""Embedding rows beyond the vocabulary, for the image token and reserved ones (`MllamaTextModel`)."""

_NAMES = AttentionNames(**{part: f"cross_attn.{part}" for part in ("q_norm", "k_norm")},
                        **{part: f"cross_attn.{part}_proj" for part in "qkvo"})  # fmt: skip


def mllama(fields: Fields, name: str) -> ModelConfig:
    """Heads as wide as the hidden size implies; gates in cross-attention layers."""
    dims = read_dims(fields)
    if dims.tied:
        fields.problem(
            "tie_word_embeddings", "is not allowed; expected false: the embedding has rows beyond the head's"
        )
    if fields.raw("head_dim") is not None and dims.head_dim * dims.heads != dims.hidden:
        fields.problem("head_dim", "is not allowed; expected hidden_size over the attention heads")
    looks = fields.sequence("cross_attention_layers", most=MOST_LAYERS) or [3, 8, 13, 18, 23, 28, 33, 38]
    mlp = Mlp(intermediate=dims.intermediate)
    cross = CrossAttention(
        heads=dims.heads, kv_heads=dims.kv_heads, head_dim=dims.head_dim, head_norms=True, names=_NAMES
    )
    parts = (("attn_residual", "input_layernorm", cross, "cross_attn_attn_gate"),
             ("mlp_residual", "post_attention_layernorm", mlp, "cross_attn_mlp_gate"))  # fmt: skip
    seeing = SeeingBlock(
        parts=tuple(
            Residual(name=label, norm=NormLayer(name=norm), post_norm=Scale(name=gate, scalar=True),
                     branches=(Branch(layer=layer),))
            for label, norm, layer, gate in parts
        )
    )  # fmt: skip
    reading = pre_norm(self_attention(dims), mlp)
    blocks: list[Layer] = [seeing if i in looks else reading for i in range(dims.layers)]
    return assemble(name, dims, blocks, stem=Stem(vocab_size=dims.vocab + MARKS))


FAMILIES: dict[str, Reader] = {"mllama_text_model": mllama}
"""Readers by `model_type`."""
