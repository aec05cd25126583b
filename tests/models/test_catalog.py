"""Every file of the catalog: its makers' count of parameters, its source, its precision as published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphsim.errors import ConfigError
from graphsim.files.catalog import list_files
from graphsim.files.reading import load_mapping
from graphsim.models.loading import list_models, load_model
from tests.catalog import QUICK, models
from tests.paths import REFERENCE

KINDS = (
    "codestral-mamba-7b", "deepseek-v2-lite", "flan-t5-xxl", "gemma-3-4b", "jamba-52b", "kimi-linear-48b-a3b",
    "llama-nemotron-super-49b", "nemotron-3-nano-30b-a3b", "qwen3-next-80b-a3b", "qwen3.5-35b-a3b",
    "whisper-large-v3-turbo",
)  # fmt: skip
"""Models of kinds that the others do not have."""


@pytest.mark.parametrize("name", [*KINDS, *models(but=KINDS)])
def test_the_structure_has_the_parameters_that_are_published(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert model.num_parameters == model.published_parameters > 0
    assert model.source.startswith("https://")


@pytest.mark.slow
def test_the_catalog_has_the_models_that_people_serve() -> None:
    assert len(list_models()) >= 70
    ids = [text for path in list_files("models").values() for text in load_mapping(Path(path)).get("ids", [])]
    assert len({text.lower() for text in ids}) == len(ids) >= 70, "an id belongs to one file"


def test_a_model_comes_in_the_precision_that_it_is_published_in() -> None:
    published = {"openai/gpt-oss-120b": "bf16,experts=mxfp4", "Qwen/Qwen3-32B": None}
    for name, expected in published.items():
        precision = load_model(name).precision
        assert (precision and precision.name) == expected


@pytest.mark.parametrize("name", ["kimi-k2", "minimax-m2.7", "deepseek-v3.2", "deepseek-ai/DeepSeek-R1"])
def test_checkpoints_with_scales_for_blocks_are_read_as_such(name: str) -> None:
    precision = load_model(name).precision
    assert precision is not None and precision.weights.name == "fp8_block"


def test_routed_experts_of_kimi_are_in_four_bits_and_the_rest_is_not() -> None:
    precision = load_model("moonshotai/Kimi-K2-Thinking").precision
    assert precision is not None
    assert (precision.weights.name, precision.of_experts.name) == ("bf16", "int4_g32_sym")


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("qwen3-1.7b", "Qwen--Qwen3-1.7B"),
        ("qwen3.5-27b", "Qwen--Qwen3.5-27B"),
        ("deepseek-v3", "deepseek-ai--DeepSeek-V3"),
        ("minimax-m2.7", "MiniMaxAI--MiniMax-M2.7"),
        ("nemotron-h-56b", "nvidia--Nemotron-H-56B-Base-8K"),
    ],
)
def test_a_file_says_what_the_published_config_says(name: str, theirs: str) -> None:
    path = REFERENCE / "hf_configs" / f"{theirs}_config.json"
    if not path.is_file():
        pytest.skip("no reference data")
    ours, published = load_model(name), load_model(path)
    for part in ("stem", "layers", "head", "encoders", "layer_prefix", "max_positions", "precision"):
        assert getattr(ours, part) == getattr(published, part), part


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": None}, "config is missing, expected a mapping"),
        ({"config": 3}, "config = 3 is not a mapping"),
        ({"confg": {}}, "confg is not a known key; did you mean 'config'"),
        ({"layers": 3}, "layers is not a known key"),
        ({"ids": "Acme/Own"}, "ids = 'Acme/Own' is not allowed; expected a list"),
        ({"config": {"model_type": "qwen9"}}, "model_type = 'qwen9' is not known; did you mean 'qwen"),
        ({"config": {"model_type": "qwen3", "hidden_size": -1}}, "config: hidden_size = -1 is not allowed"),
    ],
)
def test_a_mistake_in_a_file_with_a_config_is_a_sentence(change: dict[str, object], message: str) -> None:
    data = load_mapping(Path(list_files("models")["qwen3-0.6b"]))
    with pytest.raises(ConfigError, match=message):
        load_model(json.loads(json.dumps(data | change)))


def test_models_that_are_always_checked_are_there() -> None:
    assert {*QUICK, *KINDS} <= set(list_models())
