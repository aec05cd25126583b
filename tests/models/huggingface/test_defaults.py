"""What a published config leaves out is what transformers assumes, and the model says so."""

import pytest

import graphsim as gs
from graphsim.models.huggingface import from_config

GEMMA_3_4B = {
    "model_type": "gemma3_text",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "sliding_window": 1024,
}


def test_a_published_config_that_leaves_sizes_out_is_the_model_that_transformers_makes() -> None:
    config = from_config(GEMMA_3_4B, "config.json")
    table, keys, queries = 262208 * 2560, 4 * 256, 8 * 256
    layer = 2560 * (2 * queries + 2 * keys) + 3 * 2560 * 10240 + 4 * 2560 + 2 * 256
    assert config.num_parameters == table + 34 * layer + 2560


def test_sizes_taken_from_defaults_are_named_in_a_note() -> None:
    notes = " ".join(from_config(GEMMA_3_4B, "config.json").notes)
    assert "vocab_size = 262208" in notes and "num_attention_heads = 8" in notes
    assert "intermediate_size" not in notes


def test_another_spelling_of_a_size_is_not_overruled_by_its_default() -> None:
    config = {"model_type": "falcon", "hidden_size": 512, "num_hidden_layers": 2, "n_head": 8, "vocab_size": 1000}
    attention = (8 + 2) * 64 * 512 + 512 * 512
    assert (
        from_config(config, "config.json").num_parameters
        == 1000 * 512 + 2 * (attention + 8 * 512 * 512 + 2 * 512) + 2 * 512
    )


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers"])
def test_hidden_size_and_layers_are_never_assumed(key: str) -> None:
    config = {name: value for name, value in GEMMA_3_4B.items() if name != key}
    with pytest.raises(gs.ConfigError, match=key):
        from_config(config, "config.json")
