"""Gemma 3n's language model: alternating updates of several streams, low-rank residuals, per-layer inputs."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, read_dims, self_attention, size, unused, windows
from graphsim.models.layers.altup import AltUpBlock, JoinAltUp, SpreadAltUp
from graphsim.models.layers.attention import QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.per_layer_input import PerLayerStem


def gemma3n(fields: Fields, name: str) -> ModelConfig:
    """Later layers share the keys and values of earlier ones; the width of MLPs may differ by layer."""
    widths = fields.sequence("intermediate_size") if isinstance(fields.data.get("intermediate_size"), list) else []
    fields.data = {**fields.data, "intermediate_size": widths[0] if widths else fields.data.get("intermediate_size")}
    dims = read_dims(fields, tied=True)
    if widths and (len(widths) != dims.layers or not all(isinstance(w, int) and w > 0 for w in widths)):
        fields.problems.append(f"intermediate_size is not a list of widths, one for each of {dims.layers} layers")
        widths = []
    streams, own = size(fields, "altup_num_inputs", default=4, most=64), size(fields, "hidden_size_per_layer_input")
    shared = size(fields, "num_kv_shared_layers", default=15, least=0)
    slides = windows(fields, dims.layers, lambda i: (i + 1) % 5 != 0)
    blocks: list[Layer] = []
    for i, window in enumerate(slides):
        attention = self_attention(dims, window=window, bias=fields.flag("attention_bias", False), qk=QkNorm.HEAD)
        blocks.append(
            AltUpBlock(
                attention=replace(attention, shares_kv=i >= dims.layers - shared > 0),
                mlp=Mlp(intermediate=widths[i] if widths else dims.intermediate),
                streams=streams,
                rank=size(fields, "laurel_rank", default=64),
                own=own,
            )
        )
    unused(fields, "altup_active_idx", "altup_correct_scale", "activation_sparsity_pattern")
    stem = PerLayerStem(
        base=Stem(vocab_size=dims.vocab),
        entries=size(fields, "vocab_size_per_layer_input", default=dims.vocab),
        layers=dims.layers,
        width=own,
        spread=SpreadAltUp(streams=streams),
    )
    head = Head(
        vocab_size=dims.vocab,
        tied=dims.tied,
        soft_cap=dims.soft_cap,
        norm=NormLayer(name="model.norm"),
        join=JoinAltUp(streams=streams),
    )
    return replace(assemble(name, dims, blocks, head=head), stem=stem, streams=streams)


FAMILIES: dict[str, Reader] = {"gemma3n_text": gemma3n}
"""Readers by `model_type`."""
