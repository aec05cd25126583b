"""Every method of PEFT on five models: the parameters and modules that PEFT itself trains and wraps, and refuses."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.default_targets import default_targets
from graphsim.lora.methods import NOT_SIMULATED, simulated
from graphsim.lora.variants import known
from tests.paths import DATA

CASES = json.loads((DATA / "peft" / "methods.json").read_text())
MODELS: dict[str, dict[str, Any]] = CASES["models"]
ADAPTERS: dict[str, dict[str, Any]] = CASES["adapters"]
FACTS = list(csv.DictReader((DATA / "peft" / "methods.csv").open()))
LLAMA = {"model_type": "llama", "tie_word_embeddings": False} | MODELS["llama"]


def modules_of(model: dict[str, Any], lora: gs.LoraConfig) -> int:
    """Modules with an adapter: bases of its nodes, where these are no more than what is trained beside factors."""
    beside = {"lora_saved", "lora_tokens", "lora_biases"}
    if lora.kind.copies:
        beside = {"lora_biases"}
    if lora.target_modules == ():
        return 1
    seen: dict[tuple[str, str], int] = {}
    for name, op, times in walk(gs.build_graph(model, lora=lora)):
        base, _, part = name.rpartition(".")
        if op.adapter and base and part not in beside:
            seen[base, str(times)] = times
    return sum(seen.values())


EACH = [m if m == "gpt2" else pytest.param(m, marks=pytest.mark.slow) for m in MODELS]
"""Models; all but one are slow, since most adapters go on them."""


@pytest.mark.parametrize("model", EACH)
def test_parameters_and_modules_of_every_method_are_those_of_peft(model: str) -> None:
    wrong = []
    for fact in (fact for fact in FACTS if fact["model"] == model and not fact["refused"]):
        lora = gs.LoraConfig.from_peft(ADAPTERS[fact["adapter"]])
        found = gs.lora_parameters(MODELS[model], lora), modules_of(MODELS[model], lora)
        if found != (int(fact["params"]), int(fact["modules"])):
            wrong.append(f"{fact['adapter']}: {found}, PEFT {fact['params'], fact['modules']}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("model", EACH)
def test_what_peft_refuses_is_refused_in_a_sentence(model: str) -> None:
    refused = [fact["adapter"] for fact in FACTS if fact["model"] == model and fact["refused"]]
    assert refused
    for adapter in refused:
        with pytest.raises(gs.ConfigError) as error:
            gs.lora_parameters(MODELS[model], gs.LoraConfig.from_peft(ADAPTERS[adapter]))
        assert "\n" not in str(error.value), adapter


def test_there_are_facts_of_every_method_that_is_simulated() -> None:
    assert {ADAPTERS[fact["adapter"]]["peft_type"] for fact in FACTS if not fact["refused"]} == set(simulated())
    assert len(FACTS) == len(MODELS) * len(ADAPTERS)


def test_no_method_of_peft_is_unknown_and_none_is_an_error_without_a_reason() -> None:
    types = pytest.importorskip("peft.utils.peft_types")
    assert {entry.value for entry in types.PeftType} == ({*simulated(), *NOT_SIMULATED} - {"BONE"})


@pytest.mark.parametrize("method", NOT_SIMULATED)
def test_a_method_that_is_not_simulated_is_named_with_those_that_are(method: str) -> None:
    with pytest.raises(gs.ConfigError) as error:
        gs.LoraConfig.from_peft({"peft_type": method, "target_modules": ["q_proj"]})
    said = str(error.value)
    assert f"peft_type = '{method}' is not simulated" in said and "ADALORA, BOFT" in said and "\n" not in said


def test_default_targets_are_those_of_peft() -> None:
    constants = pytest.importorskip("peft.utils.constants")
    names = {kind.peft_type: kind.peft_type for kind in known().values()} | {"LN_TUNING": "LNTUNING"}
    for method, name in names.items():
        table = getattr(constants, f"TRANSFORMERS_MODELS_TO_{name}_TARGET_MODULES_MAPPING")
        expected = {kind: value if isinstance(value, str) else tuple(value) for kind, value in table.items()}
        assert default_targets(method) == expected, method
    table = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING
    assert default_targets("IA3.feedforward_modules") == {kind: tuple(names) for kind, names in table.items()}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "LOKR", "decompose_factor": 0.5}, "lora.options.decompose_factor = 0.5 is not allowed"),
        ({"peft_type": "OFT", "r": 4}, "lora.options.r = 4 is not allowed with lora.options.oft_block_size = 32"),
        ({"peft_type": "BOFT", "boft_block_size": 5}, "boft_block_size = 5 is not allowed for 'q_proj' with 64 inputs"),
        ({"peft_type": "BOFT", "boft_n_butterfly_factor": 9}, "expected even blocks, in a multiple of 256"),
        ({"peft_type": "VBLORA"}, "vector_length = 256 is not allowed for 'q_proj' with 64 inputs; expected a divisor"),
        ({"peft_type": "MISS", "init_weights": "bad"}, "options.init_weights = 'bad' is not known; did you mean 'bat'"),
        ({"peft_type": "MISS", "r": 7, "init_weights": "bat"}, "lora.rank = 7 is not allowed for 'q_proj' with 64"),
        ({"peft_type": "C3A", "block_size": 3}, "lora.rank = 3 is not allowed for 'q_proj' with 64 inputs"),
        ({"peft_type": "ROAD", "variant": "road_3"}, "lora.options.variant = 'road_3' is not known"),
        ({"peft_type": "IA3", "feedforward_modules": [1]}, "options.feedforward_modules = (1,) is not allowed"),
        ({"peft_type": "IA3", "feedforward_modules": "("}, "options.feedforward_modules: '(' is not a regular"),
        (
            {"peft_type": "ADALORA", "rank_pattern": {"q_proj.lora_E": [1, 2]}},
            "12 entries (init_r), each True or False",
        ),
        ({"peft_type": "LOHA", "target_modules": ["q_proj", "embed_tokens"]}, "variant 'loha' goes on linear layers"),
        ({"peft_type": "TRAINABLE_TOKENS", "token_indices": []}, "token_indices = [] is not allowed"),
        ({"peft_type": "TRAINABLE_TOKENS", "token_indices": [3, 3]}, "expected different row numbers from 0"),
        ({"peft_type": "LORA", "trainable_token_indices": {"embed_tokens": "x"}}, "embed_tokens = 'x' is not allowed"),
        ({"peft_type": "LORA", "layer_replication": [[2, 1]]}, "layer_replication = [[2, 1]] is not allowed"),
        ({"peft_type": "LORA", "layer_replication": [[0, 9]]}, "the model has layers 0 to 3"),
        ({"peft_type": "OFT", "bias": "some"}, "bias = 'some' is not allowed"),
    ],
)
def test_a_methods_wrong_field_is_one_sentence_that_names_it(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError) as error:
        gs.lora_parameters(LLAMA, gs.LoraConfig.from_peft({"target_modules": ["q_proj"]} | fields))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_adapters_targets_are_the_models_own_where_its_file_names_none() -> None:
    lora = gs.LoraConfig.from_peft({"peft_type": "LORA", "r": 8})
    named = gs.LoraConfig.from_peft({"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]})
    assert gs.lora_parameters(LLAMA, lora) == gs.lora_parameters(LLAMA, named)
    with pytest.raises(gs.ConfigError, match="PEFT 0.21 has no default for model_type 'olmo2'; expected names"):
        gs.lora_parameters(LLAMA | {"model_type": "olmo2"}, lora)


def test_what_adalora_pruned_is_gone() -> None:
    """A mask for each matrix, as PEFT saves it: 12 ranks, of which 5 and none are left."""
    mask = {
        "model.layers.0.self_attn.q_proj.lora_E": [True] * 5 + [False] * 7,
        "base_model.model.model.layers.1.self_attn.q_proj.lora_E": [False] * 12,
    }
    fields = {"peft_type": "ADALORA", "target_modules": ["q_proj"], "rank_pattern": mask}
    lora = gs.LoraConfig.from_peft(fields)
    assert gs.lora_parameters(LLAMA, lora) == (12 + 12 + 5) * (64 + 64 + 1)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("variant", [name for name, kind in known().items() if kind.peft_type != "LORA"])
def test_serving_engines_refuse_all_methods_but_lora(variant: str, engine: str) -> None:
    with pytest.raises(gs.ConfigError) as error:
        gs.simulate("gpt-2", "l4", lora=gs.LoraConfig(variant=variant, rank=4), engine=engine)
    said = str(error.value)
    assert said.startswith(f"lora.variant = {variant} is not allowed with engine '{engine}'")
    assert said.endswith("or strategy merge") and "\n" not in said
