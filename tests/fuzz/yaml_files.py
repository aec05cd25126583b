"""YAML files of models and devices, and a model's config.json, with something in them changed."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import graphsim as gs
from tests.fuzz.hostile import changed, spoilt
from tests.fuzz.runner import Fuzzer, require_finite
from tests.paths import ROOT, hf_configs

MODELS = ("gpt-2", "mixtral-8x7b", "mamba2-2.7b", "gemma-2-9b", "t5-large")
DEVICES = ("l4", "h100-sxm", "tpu-v5e", "mi300x")


@cache
def texts() -> dict[str, str]:
    """Models' and devices' files by `models/NAME` and `hardware/NAME`."""
    wanted = [f"models/{name}" for name in MODELS] + [f"hardware/{name}" for name in DEVICES]
    there = [name for name in wanted if (ROOT / f"{name}.yaml").is_file()]
    return {name: (ROOT / f"{name}.yaml").read_text(encoding="utf-8") for name in there}


@cache
def configs() -> list[dict[str, Any]]:
    """Every tenth config.json of the tests'."""
    return [config for _, config in sorted(hf_configs().items())][::10]


def simulated(model: Any, device: Any) -> None:
    """Some requests on one device."""
    try:
        found = gs.simulate(model, device, 1, 16, 4, engine="reference")
    except gs.InfeasibleError:
        found = gs.simulate(model, device, 1, 16, 4)
    require_finite(found.ttft_s, found.latency_s, found.memory.total_bytes)


def tried(name: str, path: Path) -> None:
    if name.startswith("models"):
        simulated(gs.load_model(path), "h100-sxm")
    else:
        simulated("gpt-2", gs.load_hardware(path))


def case(rng: random.Random, folder: Path) -> None:
    if rng.random() < 0.2:
        path = folder / "config.json"
        path.write_text(json.dumps(changed(rng.choice(configs()), rng)), encoding="utf-8")
        tried("models", path)
        return
    name = rng.choice(sorted(texts()))
    path = folder / "any.yaml"
    if rng.random() < 0.5:
        path.write_bytes(spoilt(texts()[name], rng))
    else:
        document = changed(yaml.safe_load(texts()[name]), rng)
        path.write_text(
            yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8", errors="replace"
        )
    tried(name, path)


def sound(folder: Path) -> None:
    for name, text in texts().items():
        (folder / "any.yaml").write_text(text, encoding="utf-8")
        tried(name, folder / "any.yaml")


FUZZER = Fuzzer("yaml_files", case, sound)
