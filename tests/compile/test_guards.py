"""Guards refuse what `simulate` refuses, with its sentence: for one scenario, for arrays, and in JavaScript."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile.formulas import formulas_of
from graphsim.compile.symbols import numbers_of
from graphsim.deployment.inference import Inference, Requests
from graphsim.symbolic.guards import Guards
from graphsim.symbolic.javascript import Script, runtime
from tests.golden.scenarios import scenarios
from tests.symbolic import javascript

CHANGES: dict[str, tuple[Any, ...]] = {
    "batch": (0, 1, 2.5, 64, 2 * 10**9), "input_tokens": (0, 1, 700, 40_000, 200_000, 10**6),
    "output_tokens": (-3, 1, 90, 9000.5, 10**5), "dp": (0, 1, 2, 1.5, 10**7),
    "rank": (-1, 0, 8, 12, 100, 512, 7000, 70_000), "active_adapters": (-0.5, 0, 1, 2.25, 40, 10**7),
    "adapter_share": (-0.25, 0, 0.125, 1, 1.0625), "max_loras": (0, 2, 3.5, 64),
    "max_lora_rank": (0, 16, 48, 256, 10**6),
}  # fmt: skip
"""Values of the inputs, among them some out of bounds and some that an engine refuses."""

OTHERS: list[dict[str, Any]] = [
    {"model": "llama-3.1-8b", "engine": "peft", "lora": {"variant": "shira", "target_modules": ["attn"]}},
    {"model": "llama-3.1-8b", "engine": "reference", "lora": {"variant": "bd-lora", "blocks": 4}},
    {"model": "gpt-2", "engine": "vllm", "lora": {"shares": (0.5, 0.5)}},
    {"model": "whisper-large-v3", "engine": "vllm", "lora": None},
    {"model": "llama-3.1-8b", "engine": "vllm", "hardware": "v100-sxm2-32gb", "lora": None},
    {"model": "llama-3.1-8b", "engine": "vllm", "lora": {"fully_sharded_loras": True}, "parallelism": {"tp": 4}},
]
"""Deployments with rules that random ones seldom meet."""


def asked_of(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a deployment, roofline prices among them, and those of its adapter."""
    names = ("model", "hardware", "engine", "precision", "parallelism")
    asked = {"hardware": "h100-sxm"} | {name: case[name] for name in names if name in case}
    asked["parallelism"] = gs.Parallelism(**asked.get("parallelism", {}))
    return asked | {"cost": "roofline"}, case["lora"] or {}


def changed(draw: np.random.Generator, names: list[str]) -> dict[str, Any]:
    chosen = draw.choice(names, size=min(int(draw.integers(1, 4)), len(names)), replace=False)
    return {str(name): CHANGES[name][int(draw.integers(len(CHANGES[name])))] for name in chosen}


def refusal_of(asked: dict[str, Any], adapter: dict[str, Any], change: dict[str, Any]) -> tuple[str, str]:
    """The class and the sentence with which `simulate` refuses; empty where it does not."""
    requests = {name: change.get(name, 1) for name in ("batch", "input_tokens", "output_tokens")}
    own = {name: value for name, value in change.items() if name not in (*requests, "dp")}
    try:
        lora = gs.LoraConfig(**(adapter | own)) if adapter else None
        degrees = replace(asked["parallelism"], dp=change.get("dp", 1))
        gs.simulate(**(asked | {"parallelism": degrees, "lora": lora}), **requests)
    except gs.GraphsimError as error:
        return type(error).__name__, str(error)
    return "", ""


def compared(case: dict[str, Any], draw: np.random.Generator, count: int) -> int:
    """How many of some random scenarios are refused: each by its guards as by `simulate`, alone and in an array."""
    asked, adapter = asked_of(case)
    requests = Requests(batch=1, input_tokens=1, output_tokens=1)
    try:
        lora = gs.LoraConfig(**adapter) if adapter else None
        inference = Inference(deployment=gs.Deployment(**asked, lora=lora), requests=requests)
        formulas = formulas_of(inference)
    except gs.GraphsimError:
        return 0  # refused whatever the numbers
    assert formulas is not None
    guards, start = formulas.guards, numbers_of(inference)
    names = [name for name in CHANGES if name in start]
    changes = [changed(draw, names) for _ in range(count)]
    points = [{name: float(value) for name, value in (start | change).items()} for change in changes]
    together = guards.sentences({name: np.array([point[name] for point in points]) for name in start})
    refused = 0
    for change, point, sentence in zip(changes, points, together, strict=True):
        broken = [(guard.error.__name__, guard.text()) for guard in guards.broken(point)]
        expected = refusal_of(asked, adapter, change)
        assert expected in broken or (not broken and not expected[1]), (case, change, expected, broken)
        assert sentence == (broken[0][1] if broken else ""), change
        refused += bool(broken)
    return refused


@pytest.mark.parametrize("which", range(len(OTHERS)))
def test_guards_refuse_what_simulate_refuses(which: int) -> None:
    assert compared(OTHERS[which], np.random.default_rng(which), 25) > 0


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_guards_of_random_deployments_refuse_what_simulate_refuses(part: int) -> None:
    draw = np.random.default_rng(part)
    assert sum(compared(case, draw, 20) for case in scenarios(10, seed=part)) > 40


def shira() -> tuple[Guards, dict[str, float]]:
    deployment = gs.Deployment(
        "llama-3.1-8b", "h100-sxm", engine="peft", lora=gs.LoraConfig(variant="shira"), cost="roofline"
    )
    requests = Requests(batch=1, input_tokens=8, output_tokens=2)
    inference = Inference(deployment=deployment, requests=requests)
    formulas = formulas_of(inference)
    assert formulas is not None
    return formulas.guards, {name: float(value) for name, value in numbers_of(inference).items()}


WHERE_NUMBERS_ARE = "expected at most the (2048|819.2|1024) ranks at which LoRA has as many entries"


def test_what_passes_refuse_of_numbers_is_refused_wherever_formulas_answer() -> None:
    many = gs.LoraConfig(variant="shira", rank=5000)
    arguments: dict[str, Any] = {"engine": "peft", "lora": many, "cost": "roofline"}
    with pytest.raises(gs.ConfigError, match=WHERE_NUMBERS_ARE):
        gs.simulate("llama-3.1-8b", "h100-sxm", **arguments)
    with pytest.raises(gs.ConfigError, match=WHERE_NUMBERS_ARE):
        gs.compile_step("llama-3.1-8b", "h100-sxm", **arguments)
    with pytest.raises(gs.ConfigError, match=WHERE_NUMBERS_ARE):
        gs.train("llama-3.2-1b", "h100-sxm", 1, 64, lora=many, cost="roofline")
    table = gs.sweep("llama-3.1-8b", "h100-sxm", rank=[16, 5000], **arguments)
    assert table["reason"].iloc[0] == "" and np.isfinite(table["ttft_s"].iloc[0])
    assert "lora.rank = 5000 is not allowed" in table["reason"].iloc[1] and np.isnan(table["ttft_s"].iloc[1])


def test_guards_are_formulas_of_the_inputs_with_class_and_sentence() -> None:
    guards, start = shira()
    assert guards.broken(start) == []
    guards.require(start)
    found = guards.broken(start | {"batch": 0.5, "rank": 900.0})
    assert [(guard.rule, guard.about, guard.error) for guard in found] == [
        ("bounds", "batch", gs.ConfigError), ("at_most", "lora.rank", gs.ConfigError),
        ("at_most", "lora.rank", gs.ConfigError),
    ]  # fmt: skip
    with pytest.raises(gs.ConfigError, match="batch = 0.5 is not allowed; expected whole numbers from 1"):
        guards.require(start | {"batch": np.array([4.0, 0.5, 0.25])})
    grid = guards.sentences(start | {"batch": np.array([[1.0], [0.0]]), "rank": np.array([16.0, 5000.0, 1.0])})
    assert [[bool(sentence) for sentence in row] for row in grid] == [[False, True, False], [True, True, True]]


@pytest.mark.skipif(javascript.NODE is None, reason="there is no node to run JavaScript")
def test_guards_in_javascript_say_the_same() -> None:
    guards, start = shira()
    draw, names = np.random.default_rng(3), [name for name in CHANGES if name in start]
    points = [start | {name: float(value) for name, value in changed(draw, names).items()} for _ in range(60)]
    points += [start | {"adapter_share": share} for share in (1.0 + 1e-9, -1.5e-7, 1234567.875)]
    script = Script()
    printed = script.guards(guards)
    said = javascript.said(runtime(), script.text, f"{json.dumps(points)}.map(x => refusals({printed}, x))")
    expected = [[[one.rule, one.about, one.text()] for one in guards.broken(point)] for point in points]
    assert said == expected and sum(map(bool, said)) > 20
