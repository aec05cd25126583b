"""Images that layers attend to beside the prompt (Llama 3.2 Vision): laws of what they cost and keep."""

from __future__ import annotations

from dataclasses import replace

import pytest

import graphsim as gs
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface import from_config
from graphsim.models.layers.seeing_block import SeeingBlock
from tests.paths import hf_configs

TILES, PATCHES, SEEING, KEY_HEADS, HEAD_DIM = 2, 2 * 2 + 1, 2, 2, 8
"""Of the config `mllama_whole`: 28 / 14 patches along a side and a class token; layers that see; their caches."""


def mllama() -> ModelConfig:
    return from_config(hf_configs()["mllama_whole"], "mllama_whole")


@pytest.mark.slow
@pytest.mark.parametrize("tp", [1, 2])
def test_requests_without_images_pass_by_the_layers_that_see(tp: int) -> None:
    whole, asked = mllama(), {"batch": 4, "input_tokens": 64, "output_tokens": 8, "parallelism": gs.Parallelism(tp=tp)}
    blind = replace(whole, layers=tuple(layer for layer in whole.layers if not isinstance(layer, SeeingBlock)))
    assert len(whole.layers) - len(blind.layers) == SEEING
    found, expected = (gs.simulate(model, "h100", **asked, engine="reference") for model in (whole, blind))
    assert (found.ttft_s, found.tpot_s) == (expected.ttft_s, expected.tpot_s)
    assert found.memory.kv_cache_bytes == expected.memory.kv_cache_bytes


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 3])
def test_rows_of_images_are_kept_once_in_every_layer_that_sees(images: int) -> None:
    asked = {"batch": 4, "input_tokens": 64, "output_tokens": 8}
    text, seen = (
        gs.simulate(mllama(), "h100", **asked, media=media, engine="reference")
        for media in (None, gs.Media(images=images))
    )
    rows = images * TILES * PATCHES
    kept = 4 * SEEING * rows * 2 * KEY_HEADS * HEAD_DIM * 2  # sequences, layers, rows, keys and values, bf16
    assert seen.memory.kv_cache_bytes - text.memory.kv_cache_bytes == kept
    assert seen.ttft_s > text.ttft_s
    assert seen.tpot_s > text.tpot_s


def test_a_later_step_reads_the_rows_and_projects_none_of_them() -> None:
    graph = gs.build_graph(mllama(), "decode", batch=1, context_tokens=64, media=gs.Media(images=1), expand=True)
    ops = {name.rsplit(".", 1)[-1]: op for name, op in graph.nodes(data="op") if "cross_" in name}
    assert ops["cross_k_proj"].m == ops["cross_v_proj"].m == 0
    assert ops["cross_q_proj"].m == 1
    assert ops["cross_attention"].kv_tokens == TILES * PATCHES
    assert not [name for name in graph if name.startswith("vision.")]


def test_layers_that_see_are_not_cut_into_a_pipeline() -> None:
    with pytest.raises(gs.InfeasibleError, match="is not passed between stages"):
        gs.simulate(mllama(), "h100", parallelism=gs.Parallelism(pp=2), engine="reference")
