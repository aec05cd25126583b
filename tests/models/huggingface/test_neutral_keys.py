"""Keys that are passed over change nothing in transformers' own models, and no others are passed over."""

import csv
import random
import sys
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.huggingface import from_config
from graphsim.models.huggingface.known_keys import NEUTRAL
from tests.paths import DATA, hf_configs

CONFIGS = hf_configs()
FACTS = list(csv.DictReader((DATA / "neutral_keys.csv").open()))
NOT_TRIED = {"architectures", "model_type", "dtype", "torch_dtype", "attn_implementation"}
READ_WHERE_IT_MATTERS = {
    "hidden_act": ("default:apertus", "default:apertus1p5_text"),
    "pad_token_id": ("default:fsmt",),
}
"""Keys that change a family or two, whose readers ask for them."""


def test_every_passed_over_key_was_changed_in_transformers_and_left_its_models_as_they_are() -> None:
    assert {fact["key"] for fact in FACTS} == NEUTRAL - NOT_TRIED
    for fact in FACTS:
        assert int(fact["same"]) >= 40, f"{fact['key']} left only {fact['same']} models as they are"
        known = READ_WHERE_IT_MATTERS.get(fact["key"], ())
        assert int(fact["changed"]) == len(known), f"{fact['key']} changes a model"


@pytest.mark.parametrize("name", ["default:llama", "default:mixtral", "default:gpt2", "default:nemotron_h"])
def test_torch_itself_finds_the_model_unchanged(name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    sys.path.insert(0, str(DATA))
    from make_neutral_keys import GIVEN, SKIPPED, changed, shapes_of, sorted_out  # type: ignore[import-not-found]

    data = CONFIGS[name]
    values = {key: changed(key, data[key]) if key in data else GIVEN.get(key, 1) for key in NEUTRAL - SKIPPED}
    assert sorted_out(data, values, shapes_of(data)).get("changed", []) == []


@pytest.mark.parametrize("family", READ_WHERE_IT_MATTERS["hidden_act"])
def test_an_activation_with_weights_is_asked_for(family: str) -> None:
    plain = from_config({**CONFIGS[family], "hidden_act": "silu"}, "config.json")
    assert from_config(CONFIGS[family], "config.json").num_parameters - plain.num_parameters == 2 * plain.num_layers
    with pytest.raises(gs.ConfigError, match="hidden_act"):
        from_config({**CONFIGS["default:llama"], "hidden_act": "xielu"}, "config.json")


def test_positions_of_fsmt_start_behind_its_padding() -> None:
    """The tables of positions of its encoder and its decoder have an entry more for each index below the padding's."""
    config = CONFIGS["default:fsmt"]
    later = from_config({**config, "pad_token_id": config["pad_token_id"] + 1}, "config.json")
    assert later.num_parameters - from_config(config, "config.json").num_parameters == 2 * config["d_model"]


SHAPING: list[tuple[str, Any]] = [
    ("moe_bottleneck_size", 1024), ("num_memory_layers", 4), ("ffn_ratio", 3.5), ("layer_pattern", "MEME*"),
    ("use_output_gate", True), ("kv_sharing_interval", 2), ("expertLatentDim", 512), ("block_configs", [{"ffn": 1}]),
    ("attention_kinds_by_layer", ["a", "b"]), ("conv_width", 4), ("second_norm", True), ("adapter_ranks", {"q": 8}),
    ("sink_slots", 8), ("meta_tokens", 128), ("mean_recurrence", 4), ("mod_capacity", 0.125), ("projector", "mlp"),
    ("vision_config", {"hidden_size": 32}), ("visual", {"layers": {"first": {"width": 32}}}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), SHAPING)
def test_an_unread_key_that_shapes_layers_refuses_and_says_how_to_go_on(key: str, value: Any) -> None:
    data = {**CONFIGS["default:llama"], key: value}
    with pytest.raises(gs.ConfigError, match=rf"{key} = .* is not supported.*ignore=\['{key}'\]"):
        gs.load_model(data)
    for way in ([key], key, "all"):
        model = gs.load_model(data, ignore=way)
        assert model.num_parameters == gs.load_model(CONFIGS["default:llama"]).num_parameters
        assert any(key in note for note in model.notes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("curriculum", "wikipedia"), ("checkpointing", True), ("ramp_steps", 0),
        ("trained_by", {"name": "someone", "dtype": "bfloat16", "temperature": 0.5}),
    ],
)  # fmt: skip
def test_an_unread_key_that_shapes_nothing_is_named_in_a_note(key: str, value: Any) -> None:
    notes = gs.load_model({**CONFIGS["default:llama"], key: value}).notes
    assert any(f"{key} = " in note for note in notes) or value in (0, None)


def test_no_key_of_any_family_vanishes() -> None:
    """Whatever is added to whichever config is read, on the list, named in a note, or refused."""
    rng = random.Random(18)
    names = sorted(CONFIGS)
    for i in range(60):
        name, key = rng.choice(names), f"{rng.choice(['num', 'use', 'odd', 'layer'])}_{rng.choice(['zeta', 'xi'])}_{i}"
        try:
            model = from_config({**CONFIGS[name], key: rng.choice([True, 3, 0.5, "x", [1], {"a": 1}])}, "config.json")
        except gs.ConfigError as error:
            assert key in str(error)
        else:
            assert any(key in note for note in model.notes)
