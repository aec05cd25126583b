"""Sound beside a prompt: seconds become windows of a tower, and rows among the language model's tokens."""

from __future__ import annotations

import pytest

import graphsim as gs
from graphsim.graph import total_work, walk
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import prefill
from graphsim.ops import PlaceRows
from graphsim.ops.precision import load_precision
from tests.paths import hf_configs

CONFIGS = hf_configs()

TOWERS = {
    "default:qwen2_audio": 2_273_771_520_000 + 7_864_320_000,
    "default:voxtral": 2_273_771_520_000 + 18_874_368_000,
    "default:glmasr": 2_273_771_520_000 + 22_020_096_000,
    "default:moss_transcribe_diarize": 1_138_065_408_000 + 3_932_160_000,
}
"""Flops of tower and projector on 30 s, as torch 2.13 counts them on the modules of transformers 5.24 (meta device)."""


def heard(name: str, seconds: float) -> tuple[float, float]:
    """Flops of the tower, and rows among the prompt's tokens."""
    model = from_config(CONFIGS[name], name)
    phase = prefill(1.0, 4000.0, media=gs.Media(audio_s=seconds))
    graph = build(model, phase, load_precision("bf16"))
    gs.validate(graph)
    flops = sum(op.work().flops * times for node, op, times in walk(graph) if node.startswith("audio."))
    return flops, sum(op.rows for _, op in graph.nodes(data="op") if isinstance(op, PlaceRows))


@pytest.mark.parametrize(("name", "flops"), TOWERS.items())
def test_a_window_of_sound_costs_what_torch_counts(name: str, flops: float) -> None:
    assert heard(name, 30.0)[0] == flops


def test_chunks_of_a_second_are_pictures_and_attention_sees_eight_of_them() -> None:
    """One layer of Qwen3-ASR's tower on 24 s: 113,884,594,176 flops by torch 2.13 with transformers 5.24 on a CPU."""
    config = CONFIGS["default:qwen3_asr"]
    config = {**config, "audio_config": {**config["audio_config"], "encoder_layers": 1}}
    graph = build(
        from_config(config, "one layer"), prefill(1.0, 400.0, media=gs.Media(audio_s=24.0)), load_precision("bf16")
    )
    tower = [
        op.work().flops * times
        for node, op, times in walk(graph)
        if node.startswith("audio.") and not node.startswith("audio.linear_")
    ]
    assert sum(tower) == 113_884_594_176


@pytest.mark.parametrize(
    ("name", "seconds", "windows", "rows"),
    [
        ("default:qwen2_audio", 30.0, 1, 750), ("default:qwen2_audio", 90.0, 1, 750),
        ("default:qwen2_audio", 6.0, 1, 150),
        ("default:audioflamingo3", 90.0, 3, 2250), ("default:audioflamingo3", 900.0, 20, 15_000),
        ("default:voxtral", 6.0, 1, 375), ("default:voxtral", 60.0, 2, 750),
        ("default:glmasr", 12.0, 1, 150), ("default:moss_transcribe_diarize", 60.0, 2, 750),
    ],
)  # fmt: skip
def test_windows_are_padded_and_what_was_heard_reaches_the_language_model(
    name: str, seconds: float, windows: int, rows: int
) -> None:
    """25 rows of a second where two are averaged, 12.5 where four lie side by side; Voxtral's windows come whole."""
    one = heard(name, 30.0)[0]
    flops, found = heard(name, seconds)
    assert found == rows
    assert flops == pytest.approx(windows * one, rel=0.01)


def test_no_sound_no_tower() -> None:
    model = from_config(CONFIGS["voxtral-small"], "voxtral-small")
    text = total_work(build(model, prefill(1.0, 64.0), load_precision("bf16"))).flops
    found = gs.simulate(model, "h100", input_tokens=64, output_tokens=4, cost="roofline", engine="reference")
    assert total_work(found.prefill.graph).flops == text
    assert found.memory.weights_bytes == pytest.approx(2 * model.num_parameters)
