"""Heads that `architectures` names; their counts are held to transformers in test_structure.py."""

from typing import Any

import pytest

import graphsim as gs
from tests.paths import hf_configs

GEMMA = hf_configs()["Gemma3ForSequenceClassification:five labels"]


@pytest.mark.parametrize("labels", [1, 3, 12])
def test_a_multimodal_classifier_has_the_labels_of_the_whole_config(labels: int) -> None:
    """A row of 64 weights each, whatever its text_config says of labels."""
    names = {str(label): f"kind {label}" for label in range(labels)}
    five, own = gs.load_model(GEMMA), gs.load_model({**GEMMA, "id2label": names})
    assert own.num_parameters - five.num_parameters == 64 * (labels - 5)


@pytest.mark.parametrize("wrong", [[1], "two", 3])
def test_names_of_labels_that_are_no_mapping_are_never_two_labels(wrong: Any) -> None:
    with pytest.raises(gs.ConfigError, match="id2label = .* is not allowed; expected a mapping"):
        gs.load_model({**GEMMA, "id2label": wrong})


def test_a_config_without_a_model_type_is_likened_to_none() -> None:
    with pytest.raises(gs.ConfigError, match="model_type = None is not known; allowed"):
        gs.load_model({"architectures": ["LlamaForCausalLM"]})


def test_a_multimodal_config_without_its_language_model_says_what_is_missing() -> None:
    flat = {"model_type": "llava", "hidden_size": 4096, "mm_hidden_size": 1024, "mm_projector_type": "mlp2x_gelu"}
    with pytest.raises(gs.ConfigError, match="text_config is missing, expected the config of the language model"):
        gs.load_model(flat)
