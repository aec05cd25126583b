"""Whatever a key of a config is changed to, parameters, adapters and windows are transformers' own, or it is refused.

What transformers counts is recorded in tests/data/hf_mutations.csv; see tests/data/make_mutations.py.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.injection import lora_parameters_of
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import decode
from graphsim.ops import KvCache
from graphsim.ops.precision import load_precision
from graphsim.simulation import adapter_graph
from tests.paths import DATA

QV = gs.LoraConfig(rank=8, target_modules=["q_proj", "v_proj"])
LONG, BOUNDED = 1e13, 1e9
"""Tokens of a context in which even what compresses it keeps more rows than any window."""
EVERY = 80
"""One row of so many is tried in the quick test."""


def recorded() -> dict[str, list[dict[str, str]]]:
    """Rows by config, the config itself first."""
    found: dict[str, list[dict[str, str]]] = {}
    with (DATA / "hf_mutations.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["config"], []).append(row)
    return found


ROWS = recorded()


def windows(model: gs.ModelConfig) -> str:
    """How many layers keep how many rows at most of a context longer than any window."""
    graph = build(model, decode(1.0, LONG - 1.0), load_precision("bf16"))
    caches = [(float(op.kept_tokens), times) for _, op, times in walk(graph) if isinstance(op, KvCache)]
    found = Counter[int]()
    for kept, times in caches:
        found[int(kept)] += times if 0 < kept < BOUNDED else 0  # a source of no tokens has nothing
    return " ".join(f"{window}x{times}" for window, times in sorted(found.items()) if times) or "full"


def in_adapters(model: gs.ModelConfig) -> int:
    """As `lora_parameters` counts them, without its check of what a deployment would refuse, which takes as long."""
    return round(float(lora_parameters_of(adapter_graph(model, QV))))


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The config with one key changed; `text_config/num_layers` is a key of a part."""
    key, _, rest = path.partition("/")
    return {**base, key: changed(base[key], rest, value) if rest else value}


def faults(rows: list[dict[str, str]]) -> Iterator[str]:
    """Each change for which graphsim gives a number that is not transformers'."""
    base = json.loads(rows[0]["value"])
    for row in rows:
        data = changed(base, row["key"], json.loads(row["value"])) if row["key"] else base
        if row["params"] == "refused":
            continue
        try:
            model = from_config(data, "config.json")
        except gs.ConfigError as error:
            if not row["key"]:
                yield f"{row['config']}: {error}"
            continue
        change = f"{row['config']}: {row['key']} = {row['value'] if row['key'] else 'as it is'}"
        if model.num_parameters != int(row["params"]):
            yield f"{change} gives {model.num_parameters} parameters, {row['params']} in transformers"
        elif row["lora_qv_r8"] and (found := in_adapters(model)) != int(row["lora_qv_r8"]):
            yield f"{change} gives {found} in adapters, {row['lora_qv_r8']} in PEFT"
        elif row["windows"] and windows(model) != row["windows"]:
            yield f"{change} gives windows {windows(model)}, {row['windows']} in transformers"


def test_a_changed_key_of_some_configs_is_counted_as_transformers_does_or_refused() -> None:
    names = list(ROWS)
    sample = [[ROWS[name][0], *ROWS[name][1 + i % 7 :: EVERY]] for i, name in enumerate(names[::40])]
    found = [fault for rows in sample for fault in faults(rows)]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_every_changed_key_is_counted_as_transformers_does_or_refused(name: str) -> None:
    found = list(faults(ROWS[name]))
    assert not found, "\n".join(found)
