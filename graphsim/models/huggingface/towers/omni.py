"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: a tower for images and one for audio (arXiv 2503.20215, 2509.17765)."""

from __future__ import annotations

from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.qwen import Merger, positioned, windowed
from graphsim.models.huggingface.towers.sound import WHISPER, Windows, layers_of, width_of
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Pooling
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.layers.sound import SoundStem, SpectrogramStem

_TOWER = "model.audio_tower."


def qwen2_5(parts: Parts) -> tuple[Encoder, ...]:
    """Qwen2.5-VL's tower with separate q, k and v; audio in windows of two seconds."""
    vision = parts.nested("vision_config", "qwen2_5_omni_vision_encoder")
    unused(parts.fields, "position_id_per_seconds", "seconds_per_chunk")
    images = windowed(vision, "model.visual.", AttentionNames(q="attn.q", k="attn.k", v="attn.v", o="attn.proj"))
    audio = parts.nested("audio_config", "qwen2_5_omni_audio_encoder")
    unused(audio, "scale_embedding", "max_source_positions")  # positions are fixed sinusoids
    width, out, halved = width_of(audio), size(audio, "output_dim"), Rows(shared=2)
    project = Projector(linears=(Linear(module="proj", n=out),))
    marks = Kept(name="audio_bos_eos_token", entries=2, width=out)  # embeddings of start and end
    sections = (
        Section(layers=(SoundStem(bands=size(audio, "num_mel_bins"), positions=0),), hidden=width, prefix=_TOWER),
        Section(layers=layers_of(audio, WHISPER, key_bias=False), hidden=width, prefix=f"{_TOWER}layers.{{}}."),
        Section(
            layers=(Pooling(shared=2), NormLayer(name="ln_post", kind="layer"), project), hidden=width, rows=halved,
            prefix=_TOWER,
        ),
        Section(layers=(Idle(kept=(marks,)),), hidden=out, rows=halved, prefix=_TOWER, idle=True),
    )  # fmt: skip
    cut = Windows(window_s=2 * size(audio, "n_window") / 100.0, shared=2, whole=False)
    return images, Encoder(name="audio", cut=cut, sections=sections)


def qwen3(parts: Parts) -> tuple[Encoder, ...]:
    """Qwen3-VL's tower; audio in one-second chunks through 2-D convolutions, attention in windows of eight chunks."""
    vision = parts.nested("vision_config", "qwen3_omni_moe_vision_encoder")
    unused(parts.fields, "position_id_per_seconds", "seconds_per_chunk")
    merger = Merger(norm="ln_q", linears=("mlp.0", "mlp.2"), beside="merger_list")
    images = positioned(vision, len(vision.sequence("deepstack_visual_indexes")), merger)
    audio = parts.nested("audio_config", "qwen3_omni_moe_audio_encoder")
    unused(audio, "scale_embedding", "max_source_positions", "conv_chunksize")
    width, frames = width_of(audio), 2 * size(audio, "n_window")
    stem = SpectrogramStem(
        bands=size(audio, "num_mel_bins"), frames=frames, channels=size(audio, "downsample_hidden_size")
    )
    project = Projector(linears=(Linear(module="proj1", n=width), Linear(module="proj2", n=size(audio, "output_dim"))))
    sections = (
        Section(layers=(stem,), hidden=width, prefix=_TOWER),
        Section(layers=layers_of(audio, WHISPER, key_bias=True), hidden=width, prefix=f"{_TOWER}layers.{{}}."),
        Section(layers=(NormLayer(name="ln_post", kind="layer"), project), hidden=width, prefix=_TOWER),
    )
    cut = Windows(
        window_s=size(audio, "n_window_infer") / 100.0, rows_s=stem.rows / (frames / 100.0), shared=1, whole=False
    )
    return images, Encoder(name="audio", cut=cut, sections=sections)


WHOLES: dict[str, Whole] = {
    "qwen2_5_omni_thinker": Whole(encoders=qwen2_5),
    "qwen3_omni_moe_thinker": Whole(encoders=qwen3),
}
"""Readers by `model_type` of the whole model."""
