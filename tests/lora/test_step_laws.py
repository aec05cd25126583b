"""Laws of a step with adapters: more tokens, prompts or adapters in it never make it cheaper.

Products and attention of the base model have kernels that change with the size too, and may fall by half a per cent
where they do; a step with adapters falls no further than the base model alone does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.lora.host import EngineHost
from graphsim.lora.profile import list_engines, load_profile
from graphsim.lora.tiling import Tiling
from tests.engines import QUICK, each_engine

MODEL, DEVICE = "llama-3.2-1b", "h100-sxm"
FUSED = [name for name in list_engines() if load_profile(name).kernels == "fused"]
ALLOWED = {True: 1e-9, False: 5e-4}
"""Of fused kernels, rounding; elsewhere factors are products of their own, whose tiles change with their size."""
LARGE = [("gpt-2", 1, 8, 64), ("llama-3.1-8b", 4, 192, 16), ("mixtral-8x7b", 4, 64, 16)]


class Steps:
    """Random steps: sequences that generate, a prompt or none, adapters among them; and the same with more in them."""

    def __init__(self, seed: int, count: int = 400) -> None:
        draw = np.random.default_rng(seed)
        self.generating = np.floor(10.0 ** draw.uniform(0.0, 2.9, count))
        self.context = np.floor(draw.uniform(1.0, 4000.0, count))
        self.tokens = np.where(draw.random(count) < 0.5, 0.0, np.floor(10.0 ** draw.uniform(0.0, 3.2, count)))
        self.adapters = np.minimum(np.floor(10.0 ** draw.uniform(0.0, 2.3, count)), self.generating)
        self.more = np.floor(10.0 ** draw.uniform(0.0, 3.0, count))

    def held(self, prompt: bool = False, sequence: bool = False) -> dict[str, Any]:
        """The steps' sums, with one more prompt, or one more sequence that generates."""
        further = self.more if prompt else 0.0
        count = self.generating + sequence
        pairs = (self.tokens * (self.tokens + 1.0) + further * (further + 1.0)) / 2.0
        return {
            "generating": count, "cache_rows": count * (self.context + 1.0), "prompt_tokens": self.tokens + further,
            "prompts": np.minimum(np.greater(self.tokens, 0.0) + float(prompt), self.tokens + further),
            "prompt_pairs": pairs,
        }  # fmt: skip


def never_cheaper(engine: str, model: str, tp: int, slots: int, rank: int, seed: int) -> None:
    steps, parallelism = Steps(seed), gs.Parallelism(tp=tp)
    lora = gs.LoraConfig(rank=16, target_modules=["attn"], max_loras=slots, max_lora_rank=rank)
    kernels = replace(load_profile(engine), host=EngineHost())  # launches join kernels by a power, and falls with them
    step = gs.compile_step(model, DEVICE, parallelism, lora, engine=kernels)
    base = gs.compile_step(model, DEVICE, parallelism, engine=kernels)
    before, alone = step(**steps.held(), distinct_adapters=steps.adapters), base(**steps.held())
    another = np.minimum(steps.adapters + 1.0, steps.generating + steps.tokens)
    assert gained(before, step(**steps.held(), distinct_adapters=another)) >= -ALLOWED[engine in FUSED]
    for larger in (steps.held(prompt=True), steps.held(sequence=True)):
        falls = np.maximum(alone - base(**larger), 0.0)
        for adapters in (steps.adapters, steps.adapters + 1.0):
            after = step(**larger, distinct_adapters=adapters)
            assert gained(before, after + falls) >= -ALLOWED[engine in FUSED]


def gained(before: Any, after: Any) -> float:
    """The least that a step grows by, as a part of it."""
    return float(np.min(after / before - 1.0))


@pytest.mark.parametrize("engine", each_engine())
def test_another_prompt_sequence_or_adapter_never_makes_a_step_cheaper(engine: str) -> None:
    never_cheaper(engine, MODEL, tp=1, slots=192, rank=16, seed=FUSED.index(engine) if engine in FUSED else 99)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "case"),
    [
        (engine, case)
        for number, engine in enumerate(list_engines())
        for place, case in enumerate(LARGE)
        if engine in QUICK or (number + place) % len(LARGE) == 0
    ],
    ids=str,
)
def test_nor_on_other_models_degrees_and_slots(engine: str, case: tuple[str, int, int, int]) -> None:
    """Engines of each kind on all of them, and versions of those on one in turn."""
    never_cheaper(engine, *case, seed=7)


@pytest.mark.parametrize("engine", each_engine())
def test_nor_does_a_larger_batch_or_another_adapter_in_a_simulation(engine: str) -> None:
    """Batches across the sizes at which vLLM's kernels change, 64 to 65, 127 to 129 and 512 to 513; any adapters."""
    batch = np.array([1.0, 2.0, 31.0, 33.0, 63.0, 65.0, 100.0, 127.0, 128.0, 129.0, 224.0, 511.0, 513.0, 700.0])
    adapters = np.minimum([1.0, 1.5, 8.0, 44.0, 100.0, 250.0], batch[:, None])
    lora = gs.LoraConfig(rank=16, target_modules=["attn"], active_adapters=adapters.ravel(), max_loras=256)
    found = gs.simulate(MODEL, DEVICE, np.repeat(batch, adapters.shape[1]), 64, 2, lora=lora, engine=engine)
    for times in (np.reshape(found.tpot_s, adapters.shape), np.reshape(found.ttft_s, adapters.shape)):
        assert gained(times[:, :-1], times[:, 1:]) >= -ALLOWED[engine in FUSED], "more adapters"
        assert gained(times[:-1], times[1:]) >= -2e-3, "more sequences"


def kernel(engine: Any, tokens: float, adapters: float, slots: int = 128) -> tuple[float, float]:
    """Clocks of one core that o_proj's shrink and expand take in a decode step, by what its nodes say."""
    lora = gs.LoraConfig(rank=16, target_modules=["attn"], active_adapters=adapters, max_loras=slots)
    graph = gs.build_graph("llama-3.1-8b", "decode", tokens, lora=lora, engine=engine)
    layer = next(op.body for _, op in graph.nodes(data="op") if isinstance(op, gs.ops.Repeat))
    ops = [layer.nodes[f"o_proj.lora_{part}"]["op"] for part in ("shrink", "expand")]
    shrink, expand = (float(op.tiles * op.tile_clocks + op.empty_tiles * op.empty_tile_clocks) for op in ops)
    return shrink, expand


def test_tiles_are_counted_over_all_slots_and_the_one_for_tokens_without_an_adapter() -> None:
    """vLLM 0.33, lora_shrink_op.py and lora_expand_op.py: cdiv(M, 32) * cdiv(16, 16) * 8 tiles for each of 128 + 1
    places from 128 tokens on, and cdiv(M, 64) * cdiv(4096, 128). One adapter of 200 tokens fills ceil(200 / 32) and
    ceil(200 / 64) rows of tiles."""
    own = replace(load_profile("vllm"), tile_clocks=1.0, empty_tile_clocks=0.0, expand_one=(
        Tiling(rows=64, columns=128, clocks=1.0),), shrink=(Tiling(rows=32, columns=16, split_k=8),))  # fmt: skip
    empty = replace(own, empty_tile_clocks=1.0)
    assert kernel(own, 200, 1) == (7 * 8, 4 * 32)
    assert kernel(empty, 200, 1) == (129 * 7 * 8, 129 * 4 * 32)


def test_each_adapter_has_a_tile_and_the_other_tokens_fill_as_many_more() -> None:
    """A prompt's tokens are of one adapter: of 44 adapters with 286 tokens, one may have 243, in 8 tiles of 32."""
    own = replace(load_profile("vllm"), tile_clocks=1.0, empty_tile_clocks=0.0, shrink=(
        Tiling(rows=32, columns=16),))  # fmt: skip
    spread = kernel(own, 286, 44)[0]
    assert 43 + 8 <= spread <= 43 + 8 + 1
    assert kernel(own, 286, 286, slots=286)[0] == 286
    assert kernel(own, 286, 1)[0] == 9


def test_a_kernel_that_changes_its_tiles_keeps_the_price_of_the_smaller_step() -> None:
    """Below 128 tokens 64 tiles share k, from there on 8: the larger step's own tiles would be cheaper."""
    few = load_profile("vllm").shrink[1:]
    only_few = replace(load_profile("vllm"), shrink=(replace(few[0], tokens=0.0),))
    below, at, own = (
        kernel(engine, tokens, 44)[0] for engine, tokens in (("vllm", 127), ("vllm", 128), (only_few, 128))
    )
    assert own < below <= at


def test_beyond_the_captured_sizes_the_host_starts_each_kernel_of_adapters() -> None:
    """A fill, a shrink and an expand for four packed linears of Qwen2.5-7B's 28 layers: 336 starts of a second."""
    steps = [
        gs.compile_step(
            "qwen2.5-7b", DEVICE, engine=replace(load_profile("vllm"), eager_lora_launch_s=seconds),
            lora=gs.LoraConfig(rank=16, max_loras=8),
        )
        for seconds in (0.0, 1.0)
    ]  # fmt: skip
    captured, larger = (steps[1](generating=tokens) - steps[0](generating=tokens) for tokens in (512.0, 513.0))
    assert captured == pytest.approx(0.0, abs=1e-15) and larger == pytest.approx(12 * 28)  # two formulas: to rounding
    nobody = steps[1](generating=513.0, distinct_adapters=0.0) - steps[0](generating=513.0, distinct_adapters=0.0)
    assert nobody == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("engine", ["peft", "slora", "reference"])
def test_engines_without_captured_steps_of_their_own_start_kernels_as_before(engine: str) -> None:
    assert load_profile(engine).eager_lora_launch_s == 0.0
