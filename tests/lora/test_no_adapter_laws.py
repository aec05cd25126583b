"""Law: where no token has an adapter, a step is the base model's, whatever engine, degree, model and variant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.lora.profile import list_engines, load_profile
from graphsim.lora.variants import known
from tests.engines import QUICK, each_engine
from tests.lora.variant_laws import QUICK as QUICK_VARIANTS

DENSE, EXPERTS, SLOTS = "gpt-2", "mixtral-8x7b", "llama-3.2-1b"
"""A dense model, one with experts, and one whose embedding has slots under vLLM."""

NOBODY = {
    "rank": np.array([0.0, 0.0, 16.0, 16.0]), "active_adapters": np.array([1.0, 3.0, 0.0, 2.0]),
    "adapter_share": np.array([1.0, 0.5, 1.0, 0.0]),
}  # fmt: skip
"""Rank 0, of one adapter and of three; no adapter active; and no token that has one."""

PLACES = [(SLOTS, 4), (DENSE, 1), (DENSE, 4), (EXPERTS, 1), (EXPERTS, 4), (SLOTS, 1)]
"""A model, and among how many devices it is cut."""


def engines_at_places() -> Iterator[object]:
    """Engines of each kind at every place, versions of them at half: every model, and both degrees, in turn."""
    for number, engine in enumerate(list_engines()):
        for place, (model, tp) in enumerate(PLACES):
            if engine in QUICK or place == 0 or (place <= 4 and (place + place // 3 + number) % 2):
                yield pytest.param(engine, model, tp, marks=() if place == 0 else pytest.mark.slow)


def simulated(model: str, engine: str | dict[str, Any], tp: int, **lora: Any) -> gs.Estimate:
    config = gs.LoraConfig(**lora) if lora else None
    return gs.simulate(model, "h100-sxm", 4, 64, 4, gs.Parallelism(tp=tp), config, engine=engine)


@lru_cache(maxsize=8)
def base_of(model: str, engine: str, tp: int) -> gs.Estimate:
    """The base model's estimate, which many variants are compared with."""
    return simulated(model, engine, tp)


@pytest.mark.parametrize(("engine", "model", "tp"), list(engines_at_places()))
def test_a_step_without_an_adapted_token_takes_the_time_of_the_base(engine: str, model: str, tp: int) -> None:
    base = base_of(model, engine, tp)
    refused = model == EXPERTS and engine not in QUICK  # older versions have no layer for adapters on experts
    found = simulated(model, engine, tp, target_modules=["attn"] if refused else "all-linear", **NOBODY)
    for name in ("ttft_s", "tpot_s", "latency_s"):
        np.testing.assert_allclose(getattr(found, name), getattr(base, name), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("engine", "variant", "tp"),
    [
        pytest.param(
            engine, variant, tp, marks=() if (tp, variant in QUICK_VARIANTS) == (4, True) else pytest.mark.slow
        )
        for number, variant in enumerate(known())
        for engine, tp in zip(("reference", "peft"), ((1, 4), (4, 1))[number % 2], strict=True)
    ],
)
def test_variants_do_nothing_where_no_token_has_an_adapter(engine: str, variant: str, tp: int) -> None:
    """Every variant with both engines and both degrees; each engine with every variant, and both degrees in turn."""
    base = base_of(SLOTS, engine, tp)
    blocks = {"blocks": tp} if variant == "bd-lora" else {}
    found = simulated(SLOTS, engine, tp, variant=variant, **NOBODY, **blocks)
    np.testing.assert_allclose(found.latency_s, base.latency_s, rtol=1e-9)
    assert simulated(SLOTS, engine, tp, variant=variant, rank=0).latency_s == pytest.approx(base.latency_s, rel=1e-9)


def strategies_at_models() -> Iterator[object]:
    """Every engine with every model; those of each kind with both strategies, versions of them with one in turn."""
    for number, engine in enumerate(list_engines()):
        for place, model in enumerate((SLOTS, DENSE, EXPERTS)):
            for turn, strategy in enumerate(("dynamic", "merge")):
                if engine in QUICK or (number + place + turn) % 2 == 0:
                    quick = engine in QUICK and place == turn == 0
                    yield pytest.param(engine, model, strategy, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("engine", "model", "strategy"), list(strategies_at_models()))
def test_rank_0_takes_the_memory_and_the_time_of_the_base(engine: str, model: str, strategy: str) -> None:
    base = base_of(model, engine, 2)
    found = simulated(model, engine, 2, rank=0, max_loras=4, strategy=strategy)
    assert found.memory.to_dict() == pytest.approx(base.memory.to_dict(), rel=1e-12)
    assert found.latency_s == pytest.approx(base.latency_s, rel=1e-12)


@pytest.mark.parametrize("engine", ["vllm", "vllm-0.5", "vllm-0.8", "sglang"])
def test_slots_of_a_reserved_rank_take_their_memory_though_nobody_uses_them(engine: str) -> None:
    """Buffers are allocated for the reserved rank when the engine starts, whatever is loaded later."""
    used, idle, bare = (
        simulated(SLOTS, engine, 1, rank=rank, active_adapters=active, max_loras=4, max_lora_rank=16).memory
        for rank, active in ((16, 4), (16, 0), (0, 1))
    )
    assert used.adapters_bytes == idle.adapters_bytes == bare.adapters_bytes > 0


@pytest.mark.parametrize("engine", ["vllm", "vllm-0.8", "sglang"])
def test_without_any_rank_an_engine_has_its_memory_for_the_cache(engine: str) -> None:
    base = gs.footprint(SLOTS, "h100-sxm", engine=engine)
    found = gs.footprint(SLOTS, "h100-sxm", gs.LoraConfig(rank=0, max_loras=8), engine=engine)
    assert (found.kv_bytes, found.loading_bytes) == (base.kv_bytes, base.loading_bytes)


@pytest.mark.parametrize("engine", each_engine())
def test_a_compiled_step_without_adapted_requests_takes_the_time_of_the_base(engine: str) -> None:
    slots = 0 if load_profile(engine).idle_kernels else 8
    lora = gs.LoraConfig(rank=16, active_adapters=4, max_loras=slots)
    base = gs.compile_step(SLOTS, "h100-sxm", engine=engine)
    step = gs.compile_step(SLOTS, "h100-sxm", engine=engine, lora=lora)
    held: dict[str, Any] = {"prompt_tokens": np.array([0.0, 96.0]), "generating": 8.0, "cache_rows": 800.0}
    for nobody in ({"distinct_adapters": 0.0}, {"adapted_tokens": 0.0}, {"rank_rows": 0.0}):
        np.testing.assert_allclose(step(**held, **nobody), base(**held), rtol=1e-9)
    assert np.all(step(**held) > base(**held))


def test_graphs_that_hold_the_kernels_run_them_for_nobody() -> None:
    """vLLM PR 25914: of Llama-2-7B's 0.84 s (8 requests, 32 and 128 tokens; the device is not named, an H100 by that
    time), `--enable-lora` alone took 10.5 % more, and 1.4 % once there were graphs without the kernels."""
    lora = gs.LoraConfig(rank=16, target_modules="all-linear", active_adapters=0, max_loras=1, max_lora_rank=16)
    before, after = (
        gs.simulate("llama-2-7b", "h100-sxm", 8, 32, 128, lora=lora, engine=engine).latency_s
        / gs.simulate("llama-2-7b", "h100-sxm", 8, 32, 128, engine=engine).latency_s
        for engine in ("vllm-0.8", "vllm")
    )
    assert before - 1.0 == pytest.approx(0.105, abs=0.07)
    assert after == pytest.approx(1.0, rel=1e-9)


def test_kernels_for_nobody_take_less_than_for_one_adapter_and_none_without_a_graph_or_slots() -> None:
    """Steps of more than 512 tokens are no graph, and leave the kernels out (vLLM 0.8.5, no_lora_flag_cpu)."""
    lora = gs.LoraConfig(rank=16, active_adapters=1, max_loras=8)
    step = gs.compile_step(SLOTS, "h100-sxm", engine="vllm-0.8", lora=lora)
    base = gs.compile_step(SLOTS, "h100-sxm", engine="vllm-0.8")
    tokens = np.array([1.0, 64.0, 512.0, 513.0])
    steps = (step(generating=tokens, distinct_adapters=0.0), step(generating=tokens), base(generating=tokens))
    nobody, one, alone = map(np.asarray, steps)
    assert np.all(nobody[:3] > 1.02 * alone[:3]) and np.all(nobody < one)
    assert nobody[3] == pytest.approx(alone[3], rel=1e-9)


EACH_WITH_ONE_MODEL = [
    (engine, variant, (SLOTS, EXPERTS)[(place + number) % 2])
    for place, engine in enumerate(list_engines())
    for number, variant in enumerate(known())
    if engine in QUICK or (place + number) % 3 == 0
]
"""Every variant with an engine of each kind and with a third of their versions, every version with a third of the
variants; on the dense model or on the one with experts in turn."""


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "variant", "model"), EACH_WITH_ONE_MODEL)
def test_rank_0_of_any_variant_is_never_refused(engine: str, variant: str, model: str) -> None:
    """An engine that runs no adapter of a variant has nothing to run here."""
    base, found = base_of(model, engine, 2), simulated(model, engine, 2, variant=variant, rank=0)
    assert found.latency_s == pytest.approx(base.latency_s, rel=1e-9)
    assert found.memory.total_bytes == pytest.approx(base.memory.total_bytes, rel=1e-12)


def test_the_slot_of_each_adapted_token_of_a_step_with_prompts_is_looked_up() -> None:
    """vLLM 0.8.5, convert_mapping: half of the 8 slots for each of 96 + 8 tokens, before the step begins."""
    engine = load_profile("vllm-0.8")
    lora = gs.LoraConfig(rank=16, active_adapters=4, max_loras=8)
    slower = replace(engine, host=replace(engine.host, mapping_slot_s=1e-3))
    none = replace(engine, host=replace(engine.host, mapping_slot_s=0.0))
    step, bare = (gs.compile_step(SLOTS, "h100-sxm", engine=profile, lora=lora) for profile in (slower, none))
    held: dict[str, Any] = {"prompt_tokens": 96.0, "generating": 8.0, "cache_rows": 800.0}
    assert step(**held) - bare(**held) == pytest.approx(104 * 8 / 2 * 1e-3)
    assert step(**held, adapted_tokens=26.0) - bare(**held, adapted_tokens=26.0) == pytest.approx(26 * 8 / 2 * 1e-3)
    alone = {"generating": 8.0, "cache_rows": 800.0}
    assert step(**alone) == bare(**alone), "who goes on generating has been looked up"
    ttft, without = (
        gs.simulate(SLOTS, "h100-sxm", 2, 96, 2, lora=lora, engine=profile).ttft_s for profile in (slower, none)
    )
    assert ttft - without == pytest.approx(2 * 96 * 8 / 2 * 1e-3)
