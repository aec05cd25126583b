"""Looking up what a step costs (`--benchmark-enable`), and how seldom a compiled step is asked for it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile.step import CompiledStep
from graphsim.serving.prices import Sizes, StepPrices
from graphsim.serving.pricing import price_of

pytest.importorskip("pytest_benchmark")

Benchmark = Callable[..., Any]
Mixed = tuple[int, float, int, int, int, int, int]
LORA = gs.LoraConfig(rank=16, max_loras=64)


def steps(count: int) -> list[Mixed]:
    """Steps as a server of many adapters has them at a steady load."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        batch, new = int(draw.normal(48, 10)), int(draw.lognormal(5, 0.8)) + 1
        adapters = min(int(draw.normal(30, 5)), batch)
        found.append((new, new * (new + 1) / 2, 1, 1, batch, batch * int(draw.normal(320, 40)), max(adapters, 0)))
    return [step for step in found if step[4] > 0]


@pytest.fixture(scope="module")
def price() -> StepPrices:
    return price_of(gs.Deployment("llama-3.1-8b", "h100-sxm", lora=LORA), mean_prompt=222)


def test_generation(benchmark: Benchmark, price: StepPrices) -> None:
    asked = cycle(steps(500))

    def look_up() -> float:
        *_, batch, context, adapters = next(asked)
        return price.decode(batch, context, adapters)[0]

    for _ in range(1000):
        look_up()
    assert benchmark(look_up) > 0


def test_steps_with_prompts(benchmark: Benchmark, price: StepPrices) -> None:
    asked = cycle(steps(500))
    for _ in range(1000):
        price.mixed(*next(asked))
    assert benchmark(lambda: price.mixed(*next(asked))) > 0


@pytest.mark.slow
def test_thousands_of_steps_ask_a_compiled_step_a_hundred_times() -> None:
    step, calls = gs.compile_step("llama-3.1-8b", "h100-sxm", lora=LORA), 0

    class Counted:
        def __call__(self, **given: Any) -> Any:
            nonlocal calls
            calls += 1
            return step(**given)

    counted: CompiledStep = Counted()  # type: ignore[assignment]
    price = StepPrices(counted, Sizes(mean_prompt=222.0, adapters=64), lambda _adapter, _disk: 0.0)
    for asked in steps(5000):
        price.mixed(*asked)
    assert calls <= 150
