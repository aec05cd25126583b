"""The handbook's table of counts: graphsim's numbers beside the known ones. GRAPHSIM_UPDATE_DOCS=1 renews it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import prefill
from tests.docs.pages import DOCS
from tests.kept import BF16, ELEMENT, kept_by, kept_of
from tests.paths import DATA, hf_configs, hf_facts

PAGE = DOCS / "counts.md"
HEAD = (
    "| model | type | parameters | known | bytes | known | q, v r16 | known | linear r8 | known "
    "| kept a token | known | far on | known | encoder row | known | fixed | known | sources |\n"
    + "|---" * 2 + "|---:" * 16 + "|---|\n"
)  # fmt: skip
NOTHING = "–"

QV = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"])
ALL = gs.LoraConfig(rank=8, target_modules="all-linear")

PARTLY_FP32 = ("deepseek_v4", "glm5_next", "glm5_next_text", "hy_v4", "hy_v4_vl")
"""Families that keep the weights of hyper-connections and of pooling in fp32, whatever the others are kept in."""

CONFIGS = hf_configs()


def rows_of(file: str) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in csv.DictReader((DATA / file).open(encoding="utf-8"))}


KEPT, STORED = rows_of("kv_facts.csv"), rows_of("checkpoint_bytes.csv")
COUNTED = {row["name"]: row for row in hf_facts()}


def shown() -> list[str]:
    """Published models by id, then transformers' defaults."""
    published = sorted((name for name in COUNTED if "/" in name), key=str.lower)
    return [*published, *sorted(name for name in COUNTED if name.startswith("default:"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What graphsim counts, and what is known; nothing where nothing is known."""

    ours: float | None
    known: float | None


def stored_bytes(config: gs.ModelConfig) -> float:
    graph = build(config, prefill(1.0, 1.0).with_towers, config.precision or BF16)
    return sum(float(op.weight_storage_bytes) * times for _, op, times in walk(graph))


def pair(ours: Any, known: str | float) -> Pair:
    return Pair(ours=float(ours()), known=float(known)) if known != "" else Pair(ours=None, known=None)


@cache
def pairs(name: str) -> tuple[Pair, ...]:
    """In the order of the page's columns."""
    config, fact = from_config(CONFIGS[name], name), COUNTED[name]
    whole, plain = float(fact["params"]), config.precision is None and CONFIGS[name]["model_type"] not in PARTLY_FP32
    weighs = float(STORED[name]["bytes"]) if name in STORED else ELEMENT * whole if plain else ""
    counted = (
        Pair(ours=config.num_parameters, known=whole),
        pair(lambda: stored_bytes(config), weighs),
        pair(lambda: gs.lora_parameters(config, QV), fact["lora_qv_r16"]),
        pair(lambda: gs.lora_parameters(config, ALL), fact["lora_all_linear_r8"]),
    )
    if name not in KEPT:
        return (*counted, *[Pair(ours=None, known=None)] * 4)
    ours, known = kept_by(config, int(KEPT[name]["window"])), kept_of(KEPT[name])
    fields = ("token", "far_token", "source_row", "fixed")
    return (*counted, *(Pair(ours=getattr(ours, field), known=getattr(known, field)) for field in fields))


def sources(name: str) -> Iterator[str]:
    """What gave the counts, the bytes and the cache, and where the text of the config was read."""
    fact = COUNTED[name]
    yield fact["source"]
    yield f"transformers {fact['transformers']}, PEFT {fact['peft']}" if fact["transformers"] else ""
    yield STORED[name]["source"] if name in STORED else ""
    kept = KEPT.get(name)
    yield "" if kept is None else f"cache: {kept['source']}" if kept["source"] else ""


def number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.15g}"


def row(name: str) -> str:
    counts = " | ".join(f"{number(pair.ours)} | {number(pair.known)}" for pair in pairs(name))
    said = "; ".join(part for part in sources(name) if part)
    return f"| {name.removeprefix('default:')} | `{CONFIGS[name]['model_type']}` | {counts} | {said} |\n"


def rows() -> list[str]:
    return PAGE.read_text(encoding="utf-8").partition(HEAD)[2].splitlines(keepends=True)


def update() -> None:
    before = PAGE.read_text(encoding="utf-8").partition(HEAD)[0]
    PAGE.write_text(before.rstrip("\n") + "\n\n" + HEAD + "".join(map(row, shown())), encoding="utf-8")


FEW = ("default:llama", "default:mamba2", "mistralai/Mixtral-8x7B-Instruct-v0.1")


def cells(line: str) -> list[str]:
    return line.strip().strip("|").split(" | ")


def test_the_table_names_every_published_config_and_every_default() -> None:
    if os.environ.get("GRAPHSIM_UPDATE_DOCS"):
        update()
    named = [cells(line)[0].strip() for line in rows()]
    assert named == [name.removeprefix("default:") for name in shown()], "GRAPHSIM_UPDATE_DOCS=1 renews it"
    read = [name for name in named if "/" in name and COUNTED[name]["source"]]
    assert len(named) >= 150 and len(read) >= 60


def test_every_number_of_the_table_is_the_known_one_beside_it() -> None:
    for line in rows():
        numbers = cells(line)[2:-1]
        assert numbers[::2] == numbers[1::2], line


def holds(name: str) -> None:
    assert row(name) in rows(), "GRAPHSIM_UPDATE_DOCS=1 renews it"


@pytest.mark.parametrize("name", FEW)
def test_the_table_is_what_graphsim_counts(name: str) -> None:
    holds(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shown() if name not in FEW])
def test_the_whole_table_is_what_graphsim_counts(name: str) -> None:
    holds(name)
