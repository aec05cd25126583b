"""Whisper: an encoder of 30 seconds of audio, a decoder of text (arXiv 2212.04356)."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, size, unused
from graphsim.models.huggingface.seq2seq import Style, is_alone, side_of
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.sound import SoundStem
from graphsim.models.source import SourceEncoder

_STYLE = Style(key_bias=False)

MULTILINGUAL = 51_865
"""Vocabulary size from which a model is multilingual (openai/whisper, `whisper/model.py`, is_multilingual)."""


def whisper(fields: Fields, name: str) -> ModelConfig:
    """Audio to text, or only the decoder, which may draft for a larger model."""
    alone, decoder = is_alone(fields), side_of(fields, "decoder")
    vocab, positions = size(fields, "vocab_size"), size(fields, "max_target_positions")
    heard = size(fields, "max_source_positions")
    unused(fields, "scale_embedding", "use_weighted_layer_sum", "classifier_proj_size", "median_filter_width")
    if alone:
        unused(fields, "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins")
    stem = Stem(
        vocab_size=vocab,
        positions=positions,
        module="model.decoder.embed_tokens",
        position_module="model.decoder.embed_positions",
    )
    tied = fields.flag("tie_word_embeddings", True)
    return ModelConfig(
        name=name,
        hidden_size=decoder.hidden,
        stem=stem,
        layers=decoder.decoder_layers(_STYLE, alone),
        head=Head(
            vocab_size=vocab,
            tied=tied,
            norm=NormLayer(name="model.decoder.layer_norm", kind="layer"),
            module="proj_out",
        ),
        layer_prefix="model.decoder.layers.{}.",
        max_positions=positions,
        source_encoder=None if alone else _encoder(fields, heard, vocab),
        notes=() if alone else (
            f"a request is a window of sound, padded to the {heard} rows of the encoder; input_tokens do not count",
        ),
    )  # fmt: skip


def _encoder(fields: Fields, rows: int, vocab: int) -> SourceEncoder:
    """Two 10 ms frames per row; the decoder's prompt: start of transcript, language, task, no timestamps."""
    side = side_of(fields, "encoder")
    return SourceEncoder(
        kind="whisper",
        hidden_size=side.hidden,
        stem=SoundStem(bands=size(fields, "num_mel_bins"), positions=rows, module="model.encoder."),
        layers=side.encoder_layers(_STYLE),
        tail=NormLayer(name="model.encoder.layer_norm", kind="layer"),
        rows=rows,
        start_tokens=4 if vocab >= MULTILINGUAL else 2,
    )


FAMILIES: dict[str, Reader] = {"whisper": whisper}
"""Readers by `model_type`."""
