"""Laws of drafts beside pipeline stages: the last stage drafts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import rules_of
from graphsim.serving.speculative import speculative_rules, speculator_of
from graphsim.speculation.drafts import draft_of
from graphsim.speculation.memory import table_bytes
from graphsim.speculation.step_times import StepTimes
from tests.speculation.test_estimates import EAGLE3, MEDUSA, REQUESTS, speculation

STAGED = gs.Deployment("llama-3.1-8b", "h100-sxm", engine="vllm", parallelism=gs.Parallelism(pp=2))


def estimate(given: gs.Speculation | None = None, deployment: gs.Deployment = STAGED, **changes: Any) -> gs.Estimate:
    return gs.simulate(deployment, **{**REQUESTS, **changes}, speculation=given)


@pytest.mark.parametrize(
    ("engine", "draft", "words"),
    [
        ("sglang", EAGLE3, "engine 'sglang', which refuses such drafts beside pipeline stages; use 1"),
        ("sglang", "ngram", "engine 'sglang', which refuses such drafts beside pipeline stages; use 1"),
        ("trtllm", "llama-3.2-1b", "engine 'trtllm', which refuses such drafts beside pipeline stages; use 1"),
        ("trtllm", EAGLE3, "engine 'trtllm'; drafts beside pipeline stages are simulated for vllm alone"),
        ("vllm-0.8", EAGLE3, "engine 'vllm-0.8'; drafts beside pipeline stages are simulated for vllm alone"),
        ("vllm", "llama-3.2-1b", "a draft of this kind (model): beside pipeline stages, vllm runs EAGLE"),
        ("vllm", "ngram", "a draft of this kind (n-gram): beside pipeline stages, vllm runs EAGLE"),
        ("vllm", MEDUSA, "a draft of this kind (heads): beside pipeline stages, vllm runs EAGLE"),
    ],
)
def test_what_an_engine_refuses_is_one_sentence(engine: str, draft: Any, words: str) -> None:
    with pytest.raises((gs.ConfigError, gs.InfeasibleError)) as raised:
        estimate(
            speculation(draft),
            gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine, parallelism=gs.Parallelism(pp=2)),
        )
    assert "speculation: parallelism.pp = 2 is not allowed" in str(raised.value) and words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("batch", [1, 16, 200])
def test_nothing_accepted_is_never_faster_and_none_drafted_is_the_same(batch: int) -> None:
    plain = estimate(batch=batch)
    drafted = estimate(speculation(EAGLE3, acceptance=0.0), batch=batch)
    assert drafted.tpot_s >= plain.tpot_s and drafted.ttft_s >= plain.ttft_s and drafted.latency_s > plain.latency_s
    none = estimate(speculation(EAGLE3, tokens=0), batch=batch)
    assert (none.tpot_s, none.ttft_s) == (plain.tpot_s, plain.ttft_s)
    assert none.memory.to_dict() == plain.memory.to_dict()


def test_one_sequence_waits_for_all_stages_and_the_draft() -> None:
    """Nothing overlaps: what drafting and verifying take adds up, and the draft's time is that beside one stage."""
    given = speculation(EAGLE3, acceptance=1.0)
    told = estimate(given, batch=1).speculation
    alone = estimate(given, replace(STAGED, parallelism=gs.Parallelism()), batch=1).speculation
    assert told is not None and alone is not None
    assert told.speedup == pytest.approx(told.tokens_per_step * told.plain_s / (told.draft_s + told.verify_s))
    assert told.draft_s == pytest.approx(alone.draft_s, rel=1e-6)


def test_the_last_stage_drafts_while_others_compute() -> None:
    """With a micro-batch in each stage, a step takes at least the last stage's work on all of them, and at most the
    time without any overlap of drafting.
    """
    times = StepTimes(target=STAGED, draft=draft_of(speculation(EAGLE3), STAGED), tokens=3.0)
    contexts = np.array([100.0, 2000.0])
    one, two = (times.step(32.0, contexts, micro_batches=count) for count in (1.0, 2.0))
    assert np.all(two.draft_s == one.draft_s) and np.all(two.plain_s >= one.plain_s)
    assert np.all(two.seconds >= np.maximum(one.seconds, two.plain_s))
    assert np.all(two.seconds <= two.verify_s + 2.0 * two.draft_s)
    *_, (_, last) = times._stages_s(times._phase(32.0, contexts, None, None))
    assert np.all(two.seconds >= 2.0 * (last + two.draft_s) * (1.0 - 1e-12))


def test_scenarios_are_each_as_alone() -> None:
    given = speculation(EAGLE3)
    many = estimate(given, batch=np.array([1, 3, 64]))
    for i, batch in enumerate((1, 3, 64)):
        one = estimate(given, batch=batch)
        for name in ("ttft_s", "tpot_s", "energy_per_token_j"):
            assert getattr(many, name)[i] == pytest.approx(getattr(one, name), rel=1e-9), (name, batch)
        assert np.asarray(many.memory.total_bytes)[i] == one.memory.total_bytes


def test_only_the_last_stage_holds_the_draft() -> None:
    """With a copy of the embedding's table, which the first stage has (vLLM pull request 50514)."""
    inference = estimate().inference
    assert inference is not None
    first, last = inference.memories()
    draft = estimate(deployment=gs.Deployment(EAGLE3, "h100-sxm", engine="vllm"), output_tokens=101).memory
    found = estimate(speculation(EAGLE3, tokens=4)).memory
    table = 128_256 * 4096 * 2.0
    assert table_bytes(STAGED) == table and table_bytes(replace(STAGED, parallelism=gs.Parallelism())) == 0.0
    assert found.weights_bytes == pytest.approx(
        max(first.weights_bytes, last.weights_bytes + draft.weights_bytes + table)
    )
    assert found.max_batch < estimate().memory.max_batch


def test_servers_keep_the_draft_on_the_last_stage() -> None:
    given = speculation(EAGLE3)
    rules = speculative_rules(speculator_of(given, STAGED), STAGED, EngineLimits())
    whole = rules_of(STAGED, EngineLimits())
    assert 0.5 * whole.kv_blocks < rules.kv_blocks < whole.kv_blocks
    traffic = gs.Traffic.closed(concurrency=4, requests=8, input_tokens=200, output_tokens=40)
    faster = gs.serve(STAGED, traffic, speculation=speculation(EAGLE3, acceptance=0.9))
    assert faster.summary()["mean_tpot_ms"] < gs.serve(STAGED, traffic).summary()["mean_tpot_ms"]
