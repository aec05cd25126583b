"""What transformers, PEFT and torch's flop counter say of architectures in other sizes: tests/data/capture, read.

tests/data/make_capture_facts.py makes it, without graphsim.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.paths import DATA

FOLDER = DATA / "capture"
KINDS = ("weights", "products", "grouped", "convolution", "positions")
SOURCE = 37
"""Rows that encoders have made of the source of each sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that torch counted.

    kind: `prompt`, `prompt_last` with the logits of its last position only, or `decode` of one token behind `tokens`
    flops: by what is multiplied; cache_bytes: of all sequences once it is done, 0 where nothing is kept
    """

    kind: str
    batch: int
    tokens: int
    flops: Mapping[str, int]
    cache_bytes: int

    @property
    def name(self) -> str:
        """`decode 3x53`."""
        return f"{self.kind} {self.batch}x{self.tokens}"

    @property
    def all_logits(self) -> bool:
        """Whether the head runs on every position of a prompt."""
        return self.kind == "prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is known of an architecture; nothing where it has no such number.

    adapters: PEFT's parameters at rank 8, by targets; bytes are of a bfloat16 cache
    """

    name: str
    config: Mapping[str, Any]
    params: int
    adapters: Mapping[str, int]
    token_bytes: float | None
    state_bytes: float | None
    source_row_bytes: float | None
    loops: bool
    steps: tuple[Step, ...]
    why: str

    def compared_steps(self) -> list[Step]:
        """Prompts as engines run them, where the class can, and decode steps."""
        last = any(step.kind == "prompt_last" for step in self.steps)
        return [step for step in self.steps if step.kind != ("prompt" if last else "prompt_last")]


@cache
def truths() -> dict[str, Truth]:
    """Every architecture that has a config, by `model_type`."""
    configs = json.loads((FOLDER / "configs.json").read_text(encoding="utf-8"))
    steps: dict[str, list[Step]] = {}
    for row in _rows("flops.csv"):
        steps.setdefault(row["model_type"], []).append(_step(row))
    rows = {row["model_type"]: row for row in _rows("facts.csv")}
    return {name: _truth(name, config, rows[name], steps.get(name, [])) for name, config in configs.items()}


def _truth(name: str, config: Mapping[str, Any], row: Mapping[str, str], steps: list[Step]) -> Truth:
    counted = {"q_proj, v_proj": row["lora_qv_r8"], "all-linear": row["lora_all_linear_r8"]}
    return Truth(
        name=name,
        config=config,
        params=int(row["params"]),
        adapters={targets: int(number) for targets, number in counted.items() if number},
        token_bytes=_number(row["token_bytes"]),
        state_bytes=_number(row["state_bytes"]),
        source_row_bytes=_number(row["source_row_bytes"]),
        loops=bool(row["loops"]),
        steps=tuple(steps),
        why=row["why"],
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _step(row: Mapping[str, str]) -> Step:
    return Step(
        kind=row["step"],
        batch=int(row["batch"]),
        tokens=int(row["tokens"]),
        flops=Counter({kind: int(row[kind]) for kind in KINDS}),
        cache_bytes=int(row["cache_bytes"] or 0),
    )


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
