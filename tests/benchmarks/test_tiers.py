"""What each tier of the compiler saves: with it switched off, the work that it is for takes longer, or more memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from math import inf
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile import evaluated
from graphsim.compile.formulas import Formulas
from graphsim.compile.symbols import numbers_of
from graphsim.cost import calibrated
from graphsim.cost.families import tiles
from graphsim.deployment.inference import Inference, Requests
from graphsim.symbolic import kernel, program
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.kernel import Kernel, Remembering
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.program import Program
from tests.benchmarks.measure import cpu_seconds

Work = Callable[[], object]
Off = Callable[[pytest.MonkeyPatch], None]


def deployment() -> gs.Deployment:
    """A new one: what a process knows of others does not help."""
    return gs.Deployment("llama-3.1-8b", replace(gs.load_hardware("h100-sxm")), lora=gs.LoraConfig(rank=16))


def decode_steps() -> Work:
    """Steps of generation whose sequences go on, and whose kernels but attention so come back."""
    step, rows = gs.compile_step(deployment()), count(10_000)

    def run() -> None:
        for at in range(300):
            step(generating=1 + at % 60, cache_rows=next(rows))

    return run


def new_prompts() -> Work:
    """Steps of prompts of new lengths."""
    step, sizes = gs.compile_step(deployment()), count(101, 7)

    def run() -> None:
        for _ in range(100):
            step(prompt_tokens=next(sizes))

    return run


def evaluating(*shapes: tuple[str, Any]) -> Work:
    """Times of many scenarios, which take no sum."""
    requests = Requests(batch=1, input_tokens=1, output_tokens=1)
    inference = Inference(deployment=deployment(), requests=requests)
    formulas, inputs = Formulas(inference), numbers_of(inference) | dict(shapes)
    return lambda: formulas.times_s(inputs)


def own_list(length: int = 2**15) -> Work:
    """Scenarios whose batches and lengths are all different."""
    draw = np.random.default_rng(0)
    return evaluating(
        ("batch", draw.integers(1, 129, length) * 1.0), ("input_tokens", draw.integers(50, 7000, length) * 1.0)
    )


def long_list() -> Work:
    return own_list(2**17)


def long_answers() -> Work:
    """Scenarios that generate thousands of tokens each."""
    draw = np.random.default_rng(0)
    return evaluating(
        ("batch", draw.integers(1, 129, 128) * 1.0),
        ("input_tokens", draw.integers(50, 7000, 128) * 1.0),
        ("output_tokens", draw.integers(7000, 9000, 128) * 1.0),
    )


def no_values_kept(patch: pytest.MonkeyPatch) -> None:
    def call(self: Any, *sizes: Any) -> Any:
        arrays = any(isinstance(size, np.ndarray) for size in sizes)
        return self._of_arrays(*sizes) if arrays else self._of_numbers(sizes)

    patch.setattr(Remembering, "__call__", call)


def nothing_printed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(program, "_PRINT_AFTER", inf)


def no_stages(patch: pytest.MonkeyPatch) -> None:
    def maker(self: Kernel) -> Any:
        return self._own_ready or (lambda *seldom: lambda first: self._program.at(first, *seldom)[0])

    patch.setattr(Kernel, "_maker", property(maker))


def no_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tiles, "Kernel", lambda sizes, formula, _ready, rates: Kernel(sizes, formula, None, rates))


def no_equal_values(patch: pytest.MonkeyPatch) -> None:
    for module in (kernel, tiles):
        patch.setattr(module, "at_distinct", lambda function, sizes: function(*sizes))


def no_quadrature(patch: pytest.MonkeyPatch) -> None:
    made = GrowingSum.__init__

    def step_by_step(self: GrowingSum, *given: Any) -> None:
        made(self, *given)
        self.in_pieces = False

    patch.setattr(GrowingSum, "__init__", step_by_step)


def no_pieces(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evaluated, "_BLOCK", 2**40)


def arrays_held(patch: pytest.MonkeyPatch) -> None:
    made = Program._array_version

    def version(self: Program, varying: set[int]) -> Any:
        return [(slot, function, operands, ()) for slot, function, operands, _ in made(self, varying)]

    patch.setattr(Program, "_array_version", version)


TIERS: dict[str, tuple[Off, Callable[[], Work], float]] = {
    "values of single sizes are kept": (no_values_kept, decode_steps, 1.5),
    "programs are printed": (nothing_printed, new_prompts, 1.5),
    "two stages for a weight that comes back": (no_stages, new_prompts, 1.1),
    "few tiles are tried for many rows": (no_rows, own_list, 1.15),
    "equal values of an array once": (no_equal_values, own_list, 1.15),
    "sums over a growing context by quadrature": (no_quadrature, long_answers, 1.7),
}
"""How it is switched off, the work that it is for, and how much longer that takes then, at least."""


@contextmanager
def switched(off: Off | None) -> Iterator[None]:
    """No kernel is known, and a tier may be off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrated, "_kinds", Memo(most=64))
        tiles._recorded.cache_clear()
        if off is not None:
            off(patch)
        yield
        tiles._recorded.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("tier", TIERS)
def test_work_takes_longer_without_a_tier(tier: str) -> None:
    off, made, least = TIERS[tier]
    works: list[Work] = []
    for which in (None, off):
        with switched(which):
            works.append(made())
            works[-1]()

    def without() -> None:
        with switched(off):
            works[1]()

    with_s, without_s = cpu_seconds(works[0], without, turns=15)
    print(f"{tier}: {without_s / with_s:.2f} times as long without")
    assert without_s > least * with_s


IN_MEMORY: dict[str, tuple[Off, Callable[[], Work]]] = {
    "blocks of scenarios": (no_pieces, long_list),
    "arrays are let go of": (arrays_held, own_list),
}
"""How a tier that saves memory is switched off, and the work that it is for. Times were 0.9 to 1.3 of those with it."""


@pytest.mark.slow
@pytest.mark.parametrize("tier", IN_MEMORY)
def test_work_takes_more_memory_without_a_tier(tier: str) -> None:
    off, made = IN_MEMORY[tier]
    peaks = [peak_bytes(made, switched_off) for switched_off in (None, off)]
    print(f"{tier}: {peaks[1] / peaks[0]:.1f} times the memory without")
    assert peaks[1] > 4.0 * peaks[0]


def peak_bytes(made: Callable[[], Work], off: Off | None) -> int:
    """The most memory that some work takes beyond its inputs."""
    with switched(off):
        work = made()
        work()
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
