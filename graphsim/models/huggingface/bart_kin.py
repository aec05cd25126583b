"""BART-like models with other embeddings and heads: TrOCR's and BigBird-Pegasus's decoders, FSMT, SeamlessM4T."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, size, unused
from graphsim.models.huggingface.seq2seq import Style, is_alone, side_of
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.source import SourceEncoder


def trocr(fields: Fields, name: str) -> ModelConfig:
    """The text decoder of TrOCR (arXiv 2109.10282), without the image encoder."""
    side, positions = side_of(fields, "decoder"), size(fields, "max_position_embeddings")
    unused(fields, "scale_embedding", "is_encoder_decoder")
    width = size(fields, "cross_attention_hidden_size", default=side.hidden)
    learned, normed = fields.flag("use_learned_position_embeddings", True), fields.flag("layernorm_embedding", True)
    module = "model.decoder"
    return ModelConfig(
        name=name,
        hidden_size=side.hidden,
        stem=Stem(
            vocab_size=size(fields, "vocab_size"),
            positions=positions + 2 if learned else 0,
            norm=NormLayer(name=f"{module}.layernorm_embedding", kind="layer") if normed else None,
            module=f"{module}.embed_tokens",
            position_module=f"{module}.embed_positions",
        ),
        layers=side.decoder_layers(Style(pre_norm=False, source_width=width), alone=True),
        head=Head(
            vocab_size=size(fields, "vocab_size"),
            tied=fields.flag("tie_word_embeddings", True),
            module="output_projection",
        ),
        layer_prefix=f"{module}.layers.{{}}.",
        max_positions=positions if learned else 0,
    )


def bigbird_pegasus(fields: Fields, name: str) -> ModelConfig:
    """Only the decoder: the encoder's sparse attention (arXiv 2007.14062) is not simulated."""
    if not is_alone(fields):
        fields.problem("architectures", "is not simulated; expected BigBirdPegasusForCausalLM, the decoder alone")
    side, positions = side_of(fields, "decoder"), size(fields, "max_position_embeddings")
    unused(fields, "scale_embedding", "attention_type", "block_size", "num_random_blocks", "tie_word_embeddings")
    unused(fields, "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    vocab, module = size(fields, "vocab_size"), "model.decoder"
    return ModelConfig(
        name=name,
        hidden_size=side.hidden,
        stem=Stem(
            vocab_size=vocab,
            positions=positions,
            module=f"{module}.embed_tokens",
            position_module=f"{module}.embed_positions",
        ),
        layers=side.decoder_layers(Style(bias=fields.flag("use_bias", False)), alone=True),
        head=Head(vocab_size=vocab, norm=NormLayer(name=f"{module}.layernorm_embedding", kind="layer")),
        layer_prefix=f"{module}.layers.{{}}.",
        max_positions=positions,
    )


def fsmt(fields: Fields, name: str) -> ModelConfig:
    """Translation with separate vocabularies of the two languages (arXiv 1907.06616)."""
    unused(fields, "scale_embedding", "langs", "is_encoder_decoder", "architectures")
    if fields.flag("tie_word_embeddings", False):
        fields.problem("tie_word_embeddings", "is not simulated; expected false")
    encoder, decoder = side_of(fields, "encoder"), side_of(fields, "decoder")
    positions, style = size(fields, "max_position_embeddings"), Style(pre_norm=False)
    table = positions + fields.integer("pad_token_id", 1, least=0) + 1

    def stem(kind: str, entries: int) -> Stem:
        module = f"model.{kind}"
        return Stem(
            vocab_size=entries,
            positions=table,
            module=f"{module}.embed_tokens",
            position_module=f"{module}.embed_positions",
        )

    source, target = size(fields, "src_vocab_size"), size(fields, "tgt_vocab_size")
    return ModelConfig(
        name=name,
        hidden_size=decoder.hidden,
        stem=stem("decoder", target),
        layers=decoder.decoder_layers(style),
        head=Head(vocab_size=target, module="model.decoder.output_projection", linear=True),
        layer_prefix="model.decoder.layers.{}.",
        source_encoder=SourceEncoder(
            kind="fsmt",
            hidden_size=encoder.hidden,
            stem=stem("encoder", source),
            layers=encoder.encoder_layers(style),
            max_positions=positions,
        ),
        max_positions=positions,
    )


def seamless(fields: Fields, name: str) -> ModelConfig:
    """SeamlessM4T's text-to-text model (arXiv 2308.11596); speech is not simulated."""
    given = fields.sequence("architectures")
    if not given or not str(given[0]).endswith("ForTextToText"):
        fields.problem("architectures", "is not simulated; expected a class that ends in ForTextToText")
    parts = {part: f"cross_attention.{part}_proj" for part in "qkv"}
    style = Style(
        cross=AttentionNames(**parts, o="cross_attention.out_proj"),
        mlp=MlpNames(up="ffn.fc1", down="ffn.fc2"),
        norms=("self_attn_layer_norm", "cross_attention_layer_norm", "ffn_layer_norm"),
    )
    encoder, decoder, vocab = side_of(fields, "encoder"), side_of(fields, "decoder"), size(fields, "vocab_size")
    if not fields.flag("tie_word_embeddings", True):
        fields.problem("tie_word_embeddings", "is not simulated; expected true")
    unused(fields, *(key for key in fields.keys() if key.startswith(_SPEECH)))  # noqa: SIM118 - Fields is not a mapping
    return ModelConfig(
        name=name,
        hidden_size=decoder.hidden,
        stem=Stem(vocab_size=vocab, module="shared"),
        layers=decoder.decoder_layers(style),
        head=Head(vocab_size=vocab, tied=True, norm=NormLayer(name="text_decoder.layer_norm", kind="layer")),
        layer_prefix="text_decoder.layers.{}.",
        source_encoder=SourceEncoder(
            kind="seamless_m4t",
            hidden_size=encoder.hidden,
            stem=Stem(vocab_size=vocab, module="text_encoder.embed_tokens", shared=True),
            layers=encoder.encoder_layers(style),
            tail=NormLayer(name="text_encoder.layer_norm", kind="layer"),
            layer_prefix="text_encoder.layers.{}.",
        ),
    )


_SPEECH = (
    "speech_encoder", "t2u_", "unit_", "vocoder_", "upsample_", "resblock_", "num_adapter_layers", "adaptor_",
    "add_adapter", "num_conv_pos", "position_embeddings_type", "rotary_embedding_base", "max_source_positions",
    "conv_depthwise", "lang_embed", "spkr_embed", "variance_", "var_pred", "feature_projection", "left_chunk",
    "speech_", "char_", "left_", "right_", "max_position_embeddings", "scale_embedding", "sampling_rate",
)  # fmt: skip
"""Prefixes of keys of the speech encoder, the unit decoder and the vocoder; text positions are computed, not stored."""

FAMILIES: dict[str, Reader] = {
    "trocr": trocr,
    "bigbird_pegasus": bigbird_pegasus,
    "fsmt": fsmt,
    "seamless_m4t": seamless,
    "seamless_m4t_v2": seamless,
}
"""Readers by `model_type`."""
