"""Tables of steps say what the compiled step says."""

from __future__ import annotations

import pytest

import graphsim as gs
from graphsim.serving.step_tables import Sizes, StepTables

STEP = gs.compile_step("llama-3.1-8b", "h100-sxm", engine="vllm")
TABLES = StepTables(STEP, Sizes(sequences=64, prompt=900, context=2000, chunk_tokens=8192, mixes=True))


@pytest.mark.parametrize(("sequences", "context"), [(1, 900), (5, 1100), (33, 1500), (64, 1999)])
def test_generation(sequences: int, context: float) -> None:
    exact = STEP(generating=sequences, cache_rows=sequences * (context + 1.0))
    assert TABLES.generation_s(sequences, context) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize(("tokens", "past", "sequences"), [(900, 0, 0), (850, 0, 7), (300, 600, 7), (2700, 0, 40)])
def test_prompts(tokens: float, past: float, sequences: int) -> None:
    prompts = max(1, round(tokens / 900))
    each = tokens / prompts
    pairs = prompts * (each * past + each * (each + 1) / 2)
    exact = STEP(
        prompt_tokens=tokens, prompts=prompts, prompt_pairs=pairs, generating=sequences, cache_rows=sequences * 1200.0
    )
    assert TABLES.prompts_s(tokens, pairs, prompts, sequences, 1199.0) == pytest.approx(exact, rel=0.06)


def test_more_of_anything_is_never_cheaper() -> None:
    times = [TABLES.prompts_s(n, n * 450.5, 1, 3, 1000.0) for n in range(100, 8000, 100)]
    assert times == sorted(times)
    steps = [TABLES.generation_s(n, 1000.0) for n in range(1, 64)]
    assert steps == sorted(steps)


def test_samples_take_their_time() -> None:
    sampled = StepTables(
        STEP, Sizes(sequences=8, prompt=900, context=2000, chunk_tokens=8192, mixes=True, sampling_s=1e-3)
    )
    assert sampled.generation_s(8, 1000.0) - TABLES.generation_s(8, 1000.0) == pytest.approx(8e-3, rel=0.02)
