"""Every way to name a model leads to the same description, and the catalog's counts are the published ones."""

from __future__ import annotations

import json

import pytest

from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.models.loading import get_configs, list_models, load_model

SHIPPED = (
    "gpt-oss-20b", "mixtral-8x7b", "qwen3-30b-a3b",
    "gemma-2-9b", "gpt-2", "llama-2-13b", "llama-2-70b", "llama-2-7b", "llama-3.1-405b", "llama-3.1-70b",
    "llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b", "mistral-7b", "phi-3-mini", "qwen2.5-72b", "qwen2.5-7b",
    "qwen3-32b", "qwen3-8b",
)  # fmt: skip

OWN = """
hidden_size: 64
vocab_size: 100
layers: 2
attention: {heads: 4}
mlp: {intermediate_size: 96}
"""


def test_every_shipped_model_is_listed():
    assert set(SHIPPED) <= set(list_models())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_structure_has_exactly_the_published_parameters(name):
    model = load_model(name)
    assert model.name == name
    assert model.published_parameters > 0
    assert model.num_parameters == model.published_parameters
    assert model.source.startswith("https://huggingface.co/")


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("llama-7b", "llama-2-7b"),
        ("llama2_7b", "llama-2-7b"),
        ("Llama-2-7b-hf", "llama-2-7b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("llama2_70b", "llama-2-70b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("google/gemma-2-9b-it", "gemma-2-9b"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("microsoft/Phi-3-mini-4k-instruct", "phi-3-mini"),
        ("openai-community/gpt2", "gpt-2"),
        ("GPT2", "gpt-2"),
        ("LLAMA3_70B", "llama-3-70b"),
        ("llama-3-70b", "llama-3-70b"),
        ("llama3.1:8b", "llama-3.1-8b"),
        ("Meta-Llama-3-70B-Instruct-hf", "llama-3-70b"),
        ("Llama 2 7 B", "llama-2-7b"),
        ("qwen3_32b", "qwen3-32b"),
        ("QWEN/qwen3-32b", "qwen3-32b"),
        ("Qwen3_235B_a22B", "qwen3-235b-a22b"),
        ("DeepSeekV3", "deepseek-v3"),
        ("deepseek-r1", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("NousResearch/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("Qwen--Qwen3-1.7B_config.json", "qwen3-1.7b"),
    ],
)
def test_usual_spellings_name_the_same_model(ref, name):
    assert get_configs(ref).name == name
    assert load_model(ref).name == name


@pytest.mark.parametrize(
    "ref", ["llama-3.1-9b", "llama", "llama-2", "lama-2-7b", "llama-2-7b-x", "qwen2-57b", "llama-2-7b!"]
)
def test_a_spelling_is_never_guessed(ref):
    with pytest.raises(ConfigError, match="did you mean|allowed|is not told"):
        load_model(ref)


def test_a_loaded_model_is_the_callers_own():
    first, second = load_model("llama-2-7b"), load_model("llama-2-7b")
    first.lora_config = LoraConfig(rank=8)
    assert second.lora_config is None
    assert load_model("llama-2-7b").lora_config is None
    assert load_model(first).lora_config is first.lora_config
    assert load_model(first) is not first


def test_a_path_a_mapping_and_a_name_give_the_same_structure(tmp_path, monkeypatch):
    import yaml

    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "own.yaml"
    path.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    by_name, by_path, by_data = load_model("own"), load_model(path), load_model(yaml.safe_load(OWN))
    assert by_name.name == by_path.name == "own"
    assert by_data.name == "custom"
    assert by_name.layers == by_path.layers == by_data.layers
    # embedding and head, per layer q k v o, gate up down, two norms; final norm
    assert by_name.num_parameters == 2 * 100 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 96 + 2 * 64) + 64


def test_a_changed_file_is_read_again(tmp_path):
    import os

    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    assert load_model(path).num_layers == 2
    path.write_text(OWN.replace("layers: 2", "layers: 5"))
    os.utime(path, ns=(1, 1))
    assert load_model(path).num_layers == 5


def test_an_alias_of_an_own_model_names_it(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "own.yaml").write_text(OWN + "aliases: [Team/Our_Model-hf]\n")
    (tmp_path / "models" / "broken.yaml").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert get_configs("our-model").name == "own"


def test_a_spelling_of_two_models_is_refused(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    for name in ("one", "two"):
        (tmp_path / "models" / f"{name}.yaml").write_text(OWN + "aliases: [both]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="alias of several models; allowed: one, two"):
        load_model("both")


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("", "expected a name"),
        (7, "expected a name"),
        (None, "expected a name"),
        ([], "expected a name"),
        ("no/such/model.yaml", "no such model file"),
        ("x" * 5000, "neither a name nor a path|not known"),
        ("a\0b", "neither a name nor a path|not known"),
        ({}, "hidden_size is missing"),
    ],
)
def test_a_reference_that_names_nothing_is_explained(ref, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_model(ref)
    assert len(str(caught.value)) < 2000


def test_a_folder_without_a_config_is_explained(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        load_model(tmp_path)


def test_json_is_read_as_yaml_is(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(
        json.dumps(
            {
                "hidden_size": 64,
                "vocab_size": 100,
                "layers": 2,
                "attention": {"heads": 4},
                "mlp": {"intermediate_size": 96},
            }
        )
    )
    assert load_model(path).num_layers == 2
