"""A tower of sound built of Conformer layers computes what torch counts."""

from __future__ import annotations

import graphsim as gs
from graphsim.graph import total_work, walk
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import prefill
from graphsim.ops import DepthwiseConv
from graphsim.ops.precision import load_precision
from tests.paths import hf_configs

CONVOLUTIONS, PRODUCTS, ATTENTION = 176_832, 217_600, 12_288
"""Flops by torch 2.13's counter, of `embed_tokens_extend.audio_embed` of `phi4_multimodal_small` on 32 frames."""

LAYERS, WIDTH, TAPS, CHANNELS = 2, 24, 5, 48
FILLED = LAYERS * (TAPS - 1) * 2 * CHANNELS * (TAPS + WIDTH)
"""Of these, on rows that the taps' padding adds and that are cut off again behind the product."""


def test_a_conformer_tower_computes_what_torch_counts() -> None:
    model = from_config(hf_configs()["phi4_multimodal_small"], "phi4_multimodal_small")
    bf16, sound = load_precision("bf16"), gs.Media(audio_s=0.32)
    graphs = [build(model, prefill(1.0, 64.0, media=media), bf16) for media in (sound, None)]
    heard, text = (total_work(graph).flops for graph in graphs)
    taps = sum(op.work().vector_flops * times for _, op, times in walk(graphs[0]) if isinstance(op, DepthwiseConv))
    assert heard - text + taps == CONVOLUTIONS + PRODUCTS + ATTENTION - FILLED
