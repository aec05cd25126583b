"""Bytes that models keep of a sequence, against the caches of transformers themselves (tests/data/kv_facts.csv)."""

import csv

import pytest

from graphsim.models.huggingface import from_config
from tests.kept import kept_by, kept_of
from tests.paths import DATA, hf_configs

CONFIGS = hf_configs()
FACTS = {row["name"]: row for row in csv.DictReader((DATA / "kv_facts.csv").open(encoding="utf-8"))}

FEW = [
    *("default:llama", "default:gemma2", "default:deepseek_v32", "default:mamba2", "default:qwen3_next"),
    *("default:rwkv", "openai/whisper-large-v3", "google/gemma-3-4b-it"),
]
"""Keys and values, windows, latents, recurrent states, rows of an encoder."""


def test_every_fact_of_a_cache_has_a_config() -> None:
    lost = sorted(set(FACTS) - set(CONFIGS))
    assert not lost, f"tests/data/kv_facts.csv has rows without a config: {', '.join(lost)}"
    unsaid = [name for name, fact in FACTS.items() if not (fact["transformers"] or fact["source"])]
    assert not unsaid, f"tests/data/kv_facts.csv does not say where {', '.join(unsaid)} come from"


def holds(name: str) -> None:
    fact = FACTS[name]
    assert kept_by(from_config(CONFIGS[name], name), int(fact["window"])) == kept_of(fact)


@pytest.mark.parametrize("name", FEW)
def test_a_model_keeps_what_transformers_keeps(name: str) -> None:
    holds(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FACTS if name not in FEW])
def test_every_model_keeps_what_transformers_keeps(name: str) -> None:
    holds(name)
