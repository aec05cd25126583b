"""A target that matches nothing: what the error offers instead does match, and is never the name that was refused."""

from __future__ import annotations

import re
from functools import cache

import networkx as nx
import pytest

import graphsim as gs
from graphsim.lora.targets import USUAL, WORDS
from graphsim.models.build import build
from graphsim.models.phase import decode
from graphsim.ops.precision import load_precision
from tests.catalog import QUICK
from tests.paths import hf_configs

NAMES = (*WORDS, *USUAL, "router", "gate_up_proj", "qkv_proj", "c_attn", "fc1", "lm_head", "embed_tokens", "q_prj")
ROUTERS = {name: hf_configs()[name] for name in ("default:mixtral", "default:qwen3_moe", "default:granitemoe")}


@cache
def refusal(model: str, *names: str) -> str:
    """The error of an adapter with these targets; empty where all of them match."""
    try:
        gs.inject(graph_of(model), gs.LoraConfig(target_modules="all-linear" if "all-linear" in names else names))
    except gs.ConfigError as error:
        return str(error)
    return ""


@cache
def graph_of(model: str) -> nx.DiGraph:
    config = gs.load_model(ROUTERS.get(model, model))
    return build(config, decode(1.0, 16.0), load_precision("bf16"))


def offered(message: str) -> set[str]:
    """Names that a message suggests or lists."""
    listed = message.rpartition("allowed: ")[2].partition(", …")[0].split(", ") if "allowed: " in message else []
    return {*listed, *re.findall(r"did you mean '([^']+)'", message), *re.findall(r"is reached as '([^']+)'", message)}


@pytest.mark.parametrize("model", [*QUICK, *ROUTERS])
@pytest.mark.slow
def test_what_is_offered_matches_and_is_not_what_was_refused(model: str) -> None:
    for name in NAMES:
        message = refusal(model, name)
        for other in offered(message):
            assert other != name and not refusal(model, other), f"{name}: {other} is offered, and refused itself"
        if message and name in WORDS:
            assert "name both" in message or f"'{name}' is a word for an operation that" in message


def test_a_router_of_a_words_name_is_offered_by_its_longer_path() -> None:
    for names in (("gate",), ("attn", "gate")):
        message = refusal("mixtral-8x7b", *names)
        assert "'gate' is a word for an operation that the model does not have by itself" in message
        assert "is reached as 'mlp.gate'" in message and "did you mean 'up+gate'" in message
    assert not refusal("mixtral-8x7b", "mlp.gate")


def test_names_that_a_peft_file_cannot_use_are_not_offered() -> None:
    """PEFT knows nothing of the words of the LoRA document."""
    file = {"peft_type": "LORA", "r": 8, "target_modules": ["atn"]}
    with pytest.raises(gs.ConfigError) as error:
        gs.lora_parameters("llama-3.1-8b", gs.LoraConfig.from_peft(file))
    assert not offered(str(error.value)) & {*WORDS}
    assert "q_proj" in offered(str(error.value))


def test_modules_that_are_left_out_are_not_offered() -> None:
    with pytest.raises(gs.ConfigError) as error:
        gs.lora_parameters("llama-3.1-8b", gs.LoraConfig(target_modules=["q_prj"], exclude_modules=["q_proj"]))
    assert not offered(str(error.value)) & {"q_proj", "query"}
