"""Audio towers built like Whisper's encoder (arXiv 2212.04356): Qwen2-Audio, Voxtral, Audio Flamingo and others.

Processors cut audio into windows of 30 s and pad the last one; the tower processes whole windows, and the language
model receives only the rows of actual audio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import MOST_LAYERS, size, unused
from graphsim.models.huggingface.towers.trunks import layer_of
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer
from graphsim.models.layers.encoder import Cut, Encoder, Pieces, Rows, Section
from graphsim.models.layers.encoder_attention import EncoderAttention
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Pooling, Take
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.layers.sound import SoundStem, SpectrogramStem
from graphsim.models.media import Media
from graphsim.units import amount_text

WINDOW_S = 30.0
ROWS_PER_S = 50.0
"""Rows per second: frames of 10 ms, two per row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows(Cut):
    """Audio in windows of equal length, with the last one padded.

    window_s: length of a window, s
    rows_s: rows per second
    most_s: length to which audio is truncated, s; 0: none
    shared: number of rows merged into one for the language model
    whole: whether an incomplete group of such rows is dropped
    """

    window_s: float = WINDOW_S
    rows_s: float = ROWS_PER_S
    most_s: float = 0.0
    shared: int = 1
    whole: bool = True

    def pieces(self, media: Media) -> Pieces:
        """Windows, each with its share of the rows of actual audio."""
        seconds = min(media.audio_s, self.most_s) if self.most_s else media.audio_s
        if not seconds:
            return Pieces(count=0.0, height=1.0, width=float(self.shared))
        count = math.ceil(seconds / self.window_s)
        groups = seconds * self.rows_s / (count * self.shared)
        return Pieces(
            count=float(count), height=1.0, width=float((math.floor if self.whole else math.ceil)(groups) * self.shared)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names of a layer's modules."""

    out: str = "self_attn.out_proj"
    mlp: MlpNames = MlpNames(up="fc1", down="fc2")
    norms: tuple[str, str] = ("self_attn_layer_norm", "final_layer_norm")
    last: str = "layer_norm"


WHISPER = Names()
GLM = Names(
    out="self_attn.o_proj", mlp=MlpNames(up="mlp.fc1", down="mlp.fc2"),
    norms=("input_layernorm", "post_attention_layernorm"), last="norm",
)  # fmt: skip

_TOWER = "model.audio_tower."
_END = "model.multi_modal_projector."


def width_of(audio: Fields) -> int:
    """Width of the tower's rows."""
    return size(audio, "d_model", "hidden_size")


def layers_of(audio: Fields, names: Names, *, rope: bool = False, key_bias: bool = False) -> tuple[Layer, ...]:
    """The tower's layers."""
    width, heads = width_of(audio), size(audio, "encoder_attention_heads", "num_attention_heads")
    kv_heads = size(audio, "num_key_value_heads", default=heads)
    if width % heads:
        audio.problem("num_attention_heads", f"does not divide the width {width}")
    attention = EncoderAttention(
        heads=heads, kv_heads=kv_heads, head_dim=max(width // heads, 1), qkv_bias=True, out_bias=True, rope=rope,
        key_bias=key_bias, names=AttentionNames(o=names.out),
    )  # fmt: skip
    mlp = Mlp(intermediate=size(audio, "encoder_ffn_dim", "intermediate_size"), gated=False, bias=True, names=names.mlp)
    layer = layer_of(attention, mlp, names.norms)
    return (layer,) * size(audio, "encoder_layers", "num_hidden_layers", most=MOST_LAYERS)


def whisper(audio: Fields, names: Names = WHISPER, *, rope: bool = False) -> tuple[Section, Section]:
    """Convolutions and layers, on whole windows."""
    width, rows = width_of(audio), Rows(fixed=int(WINDOW_S * ROWS_PER_S))
    table = 0 if rope else size(audio, "max_source_positions", default=1500)
    if table and table != rows.fixed:
        audio.problem(
            "max_source_positions", f"is not simulated; expected {rows.fixed}, a window of {amount_text(WINDOW_S)} s"
        )
    unused(audio, "scale_embedding", "max_position_embeddings", "vocab_size")
    stem = SoundStem(bands=size(audio, "num_mel_bins"), positions=table)
    layers = layers_of(audio, names, rope=rope)
    return (
        Section(layers=(stem,), hidden=width, rows=rows, prefix=_TOWER),
        Section(layers=layers, hidden=width, rows=rows, prefix=f"{_TOWER}layers.{{}}."),
    )


def _heard(parts: Parts, shared: int) -> Section:
    """Selects the rows of actual audio from padded windows."""
    return Section(layers=(Take(),), hidden=parts.hidden, rows=Rows(shared=shared))


def pooled(parts: Parts, linears: tuple[Linear, ...], most_s: float) -> tuple[Encoder, ...]:
    """The mean of two rows, a norm, a projector."""
    audio = parts.nested("audio_config", "qwen2_audio_encoder")
    width, rows = width_of(audio), Rows(fixed=int(WINDOW_S * ROWS_PER_S) // 2)
    norm = NormLayer(name=WHISPER.last, kind="layer")
    sections = (
        *whisper(audio),
        Section(layers=(Pooling(shared=2), norm), hidden=width, rows=rows, prefix=_TOWER),
        Section(layers=(Projector(linears=linears),), hidden=width, rows=rows, prefix=_END),
        _heard(parts, 2),
    )
    return (Encoder(name="audio", cut=Windows(most_s=most_s, shared=2), sections=sections),)


def qwen2_audio(parts: Parts) -> tuple[Encoder, ...]:
    """One linear layer; audio is truncated to one window (transformers 5.24, `processing_qwen2_audio.py`)."""
    return pooled(parts, (Linear(module="linear", n=parts.hidden),), WINDOW_S)


def audio_flamingo(parts: Parts) -> tuple[Encoder, ...]:
    """Two linear layers; up to 10 minutes (arXiv 2507.08128; transformers 5.24, `processing_audioflamingo3.py`)."""
    return _two_linears(parts, 600.0)


def music_flamingo(parts: Parts) -> tuple[Encoder, ...]:
    """Two linear layers; up to 20 minutes (transformers 5.24, `processing_musicflamingo.py`)."""
    unused(parts.fields, "audio_frame_step")
    return _two_linears(parts, 1200.0)


def _two_linears(parts: Parts, most_s: float) -> tuple[Encoder, ...]:
    bias = parts.fields.flag("projector_bias", True)
    linears = tuple(Linear(module=f"linear_{i}", n=parts.hidden, bias=bias) for i in (1, 2))
    return pooled(parts, linears, most_s)


def _merged(audio: Fields) -> int:
    """Number of rows that are concatenated into one as wide as the tower's MLP."""
    wide = size(audio, "intermediate_size")
    if wide % width_of(audio):
        audio.problem("intermediate_size", "is not a multiple of hidden_size, by which rows are merged")
    return max(wide // width_of(audio), 1)


def voxtral(parts: Parts) -> tuple[Encoder, ...]:
    """Two linear layers on concatenated rows; the language model receives whole windows (arXiv 2507.13264)."""
    audio = parts.nested("audio_config", "voxtral_encoder")
    unused(audio, "head_dim", "num_key_value_heads")
    width, rows, merge = width_of(audio), Rows(fixed=int(WINDOW_S * ROWS_PER_S)), _merged(audio)
    linears = tuple(Linear(module=f"linear_{i}", n=parts.hidden, bias=False) for i in (1, 2))
    sections = (
        *whisper(audio),
        Section(layers=(NormLayer(name=WHISPER.last, kind="layer"),), hidden=width, rows=rows, prefix=_TOWER),
        Section(
            layers=(Projector(linears=linears),), hidden=merge * width, rows=Rows(fixed=rows.fixed // merge),
            prefix=_END,
        ),
    )  # fmt: skip
    return (Encoder(name="audio", cut=Windows(), sections=sections),)


def glmasr(parts: Parts) -> tuple[Encoder, ...]:
    """Rotary positions; two linear layers on concatenated rows (transformers 5.24, `processing_glmasr.py`: 655 s)."""
    audio = parts.nested("audio_config", "glmasr_encoder")
    width, rows, merge = width_of(audio), Rows(fixed=int(WINDOW_S * ROWS_PER_S)), _merged(audio)
    linears = (Linear(module="linear_1", n=2 * parts.hidden), Linear(module="linear_2", n=parts.hidden))
    sections = (
        *whisper(audio, GLM, rope=True),
        Section(layers=(NormLayer(name=GLM.last, kind="layer"),), hidden=width, rows=rows, prefix=_TOWER),
        Section(
            layers=(Projector(linears=linears),), hidden=merge * width, rows=Rows(fixed=rows.fixed // merge),
            prefix=_END,
        ),
        _heard(parts, merge),
    )  # fmt: skip
    return (Encoder(name="audio", cut=Windows(most_s=655.0 // WINDOW_S * WINDOW_S, shared=merge), sections=sections),)


def moss(parts: Parts) -> tuple[Encoder, ...]:
    """Rows of actual audio, concatenated in fours, two linear layers and a norm."""
    audio, merge = parts.nested("audio_config", "moss_transcribe_diarize_audio"), size(parts.fields, "audio_merge_size")
    width, rows, bias = (
        width_of(audio),
        Rows(fixed=int(WINDOW_S * ROWS_PER_S)),
        parts.fields.flag("projector_bias", True),
    )
    linears = tuple(Linear(module=f"linear_{i}", n=parts.hidden, bias=bias) for i in (1, 2))
    project = Projector(linears=linears, behind=NormLayer(name="norm", kind="layer", width=parts.hidden))
    unused(parts.fields, "audio_chunk_size")
    sections = (
        *whisper(audio),
        Section(layers=(NormLayer(name=WHISPER.last, kind="layer"),), hidden=width, rows=rows, prefix=_TOWER),
        Section(layers=(Take(), project), hidden=merge * width, rows=Rows(shared=merge), prefix=_END),
    )
    return (Encoder(name="audio", cut=Windows(shared=merge, whole=False), sections=sections),)


def qwen3_asr(parts: Parts) -> tuple[Encoder, ...]:
    """One-second chunks through 2-D convolutions, attention in windows of eight chunks, two linear layers."""
    audio = parts.nested("audio_config", "qwen3_asr_encoder")
    width, frames = width_of(audio), 2 * size(audio, "n_window")
    stem = SpectrogramStem(
        bands=size(audio, "num_mel_bins"), frames=frames, channels=size(audio, "downsample_hidden_size")
    )
    unused(audio, "max_position_embeddings", "scale_embedding")
    project = Projector(
        linears=(Linear(module="linear_1", n=width), Linear(module="linear_2", n=size(audio, "output_dim")))
    )
    sections = (
        Section(layers=(stem,), hidden=width, prefix=_TOWER),
        Section(layers=layers_of(audio, WHISPER, key_bias=True), hidden=width, prefix=f"{_TOWER}layers.{{}}."),
        Section(layers=(NormLayer(name="ln_post", kind="layer"),), hidden=width, prefix=_TOWER),
        Section(layers=(project,), hidden=width, prefix=_END),
    )
    seconds, chunk_s = size(audio, "n_window_infer") / 100.0, frames / 100.0
    cut = Windows(window_s=seconds, rows_s=stem.rows / chunk_s, shared=1, whole=False)
    return (Encoder(name="audio", cut=cut, sections=sections),)


WHOLES: dict[str, Whole] = {
    "qwen2_audio": Whole(encoders=qwen2_audio),
    "audioflamingo3": Whole(encoders=audio_flamingo),
    "musicflamingo": Whole(encoders=music_flamingo),
    "voxtral": Whole(encoders=voxtral),
    "glmasr": Whole(encoders=glmasr),
    "moss_transcribe_diarize": Whole(encoders=moss),
    "qwen3_asr": Whole(encoders=qwen3_asr),
}
"""Readers by `model_type` of the whole model."""
