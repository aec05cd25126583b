"""Encoder-decoders with MoE layers: Switch Transformers and NLLB.

Capacities of experts, beyond which tokens are dropped in training, are ignored.
"""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface import t5
from graphsim.models.huggingface.common import Reader, size, unused
from graphsim.models.huggingface.seq2seq import Side, Style, side_of
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.source import SourceEncoder


def _experts(fields: Fields, module: str, up: str, down: str, chosen: int, width: int, bias: bool) -> Moe:
    """Plain MLPs as experts, each in a separate module."""
    unused(fields, "expert_capacity", "router_dtype", "router_ignore_padding_tokens")
    return Moe(
        experts=size(fields, "num_experts"), chosen=chosen, intermediate=width, gated=False, bias=bias,
        router_bias=fields.flag("router_bias", False), adapt_experts=True, adapt_router=True,
        names=MoeNames(
            router=f"{module}.router.classifier", gate_up=f"{module}.experts.{up}", down=f"{module}.experts.{down}",
            experts=("", up, down),
        ),
    )  # fmt: skip


def switch(fields: Fields, name: str) -> ModelConfig:
    """T5 with one expert per token, at regular intervals of layers (arXiv 2101.03961)."""
    unused(fields, "add_router_probs", "router_jitter_noise")
    if not fields.flag("tie_word_embeddings", True):
        fields.problem("tie_word_embeddings", "is not simulated; expected true")
    return t5.assembled(fields, name, _switch_feeds)


def _switch_feeds(fields: Fields, depth: int, place: int, side: str) -> list[Layer]:
    module, width = f"layer.{place}.mlp", size(fields, "d_ff")
    dense = Mlp(intermediate=width, gated=False, names=MlpNames(up=f"{module}.wi", down=f"{module}.wo"))
    sparse = _experts(fields, module, "wi", "wo", 1, width, bias=False)
    count = size(fields, f"num_sparse_{side}_layers", default=3, least=0)
    step = size(fields, f"{side}_sparse_step", default=depth // count if count else depth, least=0)
    return [sparse if step == 1 or (step > 0 and i % step == 1) else dense for i in range(depth)]


def nllb_moe(fields: Fields, name: str) -> ModelConfig:
    """NLLB with two experts per token, at regular intervals of layers (arXiv 2207.04672)."""
    unused(
        fields, "scale_embedding", "second_expert_policy", "normalize_router_prob_before_dropping",
        "batch_prioritized_routing", "moe_eval_capacity_token_fraction", "moe_token_dropout", "is_encoder_decoder",
        "max_position_embeddings", "architectures",
    )  # fmt: skip
    if not fields.flag("tie_word_embeddings", True):
        fields.problem("tie_word_embeddings", "is not simulated; expected true")
    style = Style(
        cross=AttentionNames(**{part: f"cross_attention.{part}_proj" for part in "qkv"}, o="cross_attention.out_proj"),
        mlp=MlpNames(up="ffn.fc1", down="ffn.fc2"),
        norms=("self_attn_layer_norm", "cross_attention_layer_norm", "ff_layer_norm"),
    )
    encoder, decoder, vocab = side_of(fields, "encoder"), side_of(fields, "decoder"), size(fields, "vocab_size")
    stem = Stem(vocab_size=vocab, module="model.shared")
    return ModelConfig(
        name=name,
        hidden_size=decoder.hidden,
        stem=stem,
        layers=decoder.decoder_layers(style, feeds=_nllb_feeds(fields, decoder, style, "decoder")),
        head=Head(vocab_size=vocab, tied=True, norm=NormLayer(name="model.decoder.layer_norm", kind="layer")),
        layer_prefix="model.decoder.layers.{}.",
        source_encoder=SourceEncoder(
            kind="nllb-moe",
            hidden_size=encoder.hidden,
            stem=replace(stem, module="model.encoder.embed_tokens", shared=True),
            layers=encoder.encoder_layers(style, _nllb_feeds(fields, encoder, style, "encoder")),
            tail=NormLayer(name="model.encoder.layer_norm", kind="layer"),
        ),
    )


def _nllb_feeds(fields: Fields, side: Side, style: Style, kind: str) -> list[Layer]:
    sparse = _experts(fields, "ffn", "fc1", "fc2", 2, side.intermediate, bias=True)
    step = size(fields, f"{kind}_sparse_step", default=4, least=0)
    return [sparse if step and (i + 1) % step == 0 else side.mlp(style) for i in range(side.depth)]


FAMILIES: dict[str, Reader] = {"switch_transformers": switch, "nllb-moe": nllb_moe}
"""Readers by `model_type`."""
