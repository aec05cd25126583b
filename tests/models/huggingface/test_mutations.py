"""Whatever is done to a config.json, the answer is a model or one readable sentence."""

import copy
import pkgutil
import random
from collections import Counter
from importlib import import_module
from typing import Any

import pytest

import graphsim as gs
from graphsim.models import huggingface
from graphsim.models.huggingface import FAMILIES, from_config
from tests.benchmarks import measure
from tests.paths import hf_configs

CONFIGS = hf_configs()
JUNK: list[Any] = [
    None, -1, 0, 1.5, 10**30, -(10**18), "", "x", "auto", True, [], {}, [[]], {"a": {"b": [1]}}, float("nan"),
    float("inf"), "4096", [1, 2, 3], 2**31, {"rope_type": 3}, ["sliding_attention"], 1e308,
]  # fmt: skip
MUTATIONS, MOST_CALLS = 2_000, 300_000


def mutated(rng: random.Random) -> dict[str, Any]:
    config = copy.deepcopy(CONFIGS[rng.choice(list(CONFIGS))])
    for _ in range(rng.randint(1, 3)):
        part = rng.choice([config, *parts(config)])
        key = rng.choice(list(part) or ["model_type"])
        if rng.random() < 0.3:
            part.pop(key, None)
        elif isinstance(part.get(key), list) and part[key] and rng.random() < 0.5:
            part[key][rng.randrange(len(part[key]))] = copy.deepcopy(rng.choice(JUNK))
        else:
            part[key] = copy.deepcopy(rng.choice(JUNK))
    return config


def parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Mappings within the config, at any depth."""
    own = [value for value in config.values() if isinstance(value, dict)]
    return [*own, *(deeper for part in own for deeper in parts(part))]


@pytest.mark.parametrize("value", [value for value in JUNK if not isinstance(value, str)], ids=repr)
@pytest.mark.parametrize("part", [{}, {"text_config": {"hidden_size": 64}}, {"vision_config": {}, "text_config": {}}])
def test_a_model_type_that_is_no_text_is_one_readable_error(value: Any, part: dict[str, Any]) -> None:
    for data in ({"model_type": value, "hidden_size": 64, **part}, {**part, "text_config": {"model_type": value}}):
        with pytest.raises(gs.ConfigError, match=r"config\.json: [^\n]*model_type") as caught:
            from_config(data, "config.json")
        assert len(str(caught.value)) < 1_000


def test_mutated_configs_give_a_model_or_a_readable_error() -> None:
    rng = random.Random(20261123)
    models = errors = 0
    for i in range(MUTATIONS):
        config = mutated(rng)

        def read(config: dict[str, Any] = config, i: int = i) -> None:
            nonlocal models, errors
            try:
                assert from_config(config, f"mutation {i}").num_parameters > 0
                models += 1
            except gs.GraphsimError as error:
                assert "\n" not in str(error) and str(error).startswith(f"mutation {i}:")
                errors += 1

        assert measure.calls(read) < MOST_CALLS, config
    assert models > 100 and errors > 100


@pytest.mark.parametrize(("kind", "near"), [("lama", "llama"), ("qwen3moe", "qwen3_moe"), ("gpt-2", "gpt2")])
def test_an_unknown_architecture_names_itself_and_the_nearest_known(kind: str, near: str) -> None:
    with pytest.raises(gs.ConfigError, match=kind) as caught:
        from_config({"model_type": kind, "hidden_size": 64}, "config.json")
    assert near in str(caught.value)


def test_no_architecture_at_all_is_an_error() -> None:
    with pytest.raises(gs.ConfigError, match="model_type"):
        from_config({"hidden_size": 64}, "config.json")


OTHER_NAMES = {"ministral", "kimi_k2", "gemma3", "gemma4", "llama4", "qwen3_5", "qwen3_5_moe", "glm5_next"}
"""Architectures that are read as another one whose config is among the tests'."""


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_is_read_at_least_once_by_these_tests(kind: str) -> None:
    read = {str(config.get("text_config", config)["model_type"]) for config in CONFIGS.values()}
    same = any(FAMILIES[other] is FAMILIES[kind] for other in read & set(FAMILIES))
    assert kind in read or (kind in OTHER_NAMES and same), (
        f"tests/data/hf has no config of '{kind}': add one, then run tests/data/make_hf_structure.py"
    )


def test_no_two_files_read_the_same_architecture() -> None:
    names = [f"{huggingface.__name__}.{file.name}" for file in pkgutil.iter_modules(huggingface.__path__)]
    listed = [kind for name in names for kind in getattr(import_module(name), "FAMILIES", ())]
    twice = sorted(kind for kind, times in Counter(listed).items() if times > 1)
    assert not twice, f"more than one file of graphsim/models/huggingface reads {', '.join(twice)}"
    lost = sorted(set(listed) ^ set(FAMILIES))
    assert not lost, f"a file's FAMILIES and what the package gathers of them differ in {', '.join(lost)}"


@pytest.mark.parametrize("factor", [float("inf"), float("nan"), -1.0, 1e308])
def test_a_factor_out_of_range_is_one_readable_error(factor: float) -> None:
    config = {**CONFIGS["default:lfm2"], "block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": factor}
    with pytest.raises(gs.ConfigError, match="block_ffn_dim_multiplier"):
        from_config(config, "config.json")
