"""`gs.simulate` and `gs.serve` agree where they meet: on a request alone, and on a batch that arrives at once.

Where they differ, `serve` has a reason that the handbook states ("What only a run over time has"): prompts that take
several steps, the host's own time of a step, captured graphs, pipelines, slots and loads of adapters, hand-overs.
"""

from __future__ import annotations

import random
from math import ceil
from typing import Any

import pandas as pd
import pytest

import graphsim as gs
from graphsim.lora.profile import load_profile
from graphsim.serving.disaggregated.transfer import FREE
from tests.speculation.test_estimates import EAGLE3, MEDUSA, speculation

TOLERANCE = 0.003
"""Of tables of step times between their nodes."""
ROUNDS = 3
"""Of requests, of which the last is looked at: adapters are loaded by then."""
LLAMA = gs.Deployment("llama-3.1-8b", "h100-sxm")


def last_round(deployment: gs.Deployment, batch: int, inputs: int, outputs: int, **asked: Any) -> pd.DataFrame:
    told = {name: asked.pop(name) for name in ("adapters", "popularity") if name in asked}
    traffic = gs.Traffic.closed(
        concurrency=batch, requests=ROUNDS * batch, input_tokens=inputs, output_tokens=outputs, **told
    )
    requests: pd.DataFrame = gs.serve(deployment, traffic, **asked).requests
    assert (requests["status"] == "finished").all()
    return requests.iloc[-batch:]


def check(estimate: gs.Estimate, requests: pd.DataFrame, tolerance: float = TOLERANCE) -> None:
    """Every request of a batch that arrives at once is answered when the estimate says so."""
    assert requests["ttft_s"].to_numpy() == pytest.approx(float(estimate.ttft_s), rel=tolerance)
    assert requests["e2e_s"].to_numpy() == pytest.approx(float(estimate.latency_s), rel=tolerance)
    if (requests["output_tokens"] > 1).all():
        assert requests["tpot_s"].to_numpy() == pytest.approx(float(estimate.tpot_s), rel=tolerance)


MODELS = (
    "llama-3.1-8b", "gemma-3-12b", "gpt-oss-20b", "phi-4", "opt-6.7b", "mixtral-8x7b", "qwen3-30b-a3b", "olmoe-7b-a1b",
    "deepseek-v2-lite", "minicpm3-4b", "glm-4.7-flash", "nemotron-nano-9b-v2", "falcon-mamba-7b", "lfm2-8b-a1b",
    "kimi-linear-48b-a3b", "qwen2.5-vl-7b", "gemma-3-4b",
)  # fmt: skip
"""Dense ones, with experts, with latent attention, recurrent and hybrid ones, and language models of others."""
ENGINES = ("vllm", "vllm-0.11", "vllm-0.7", "vllm-deepep", "sglang", "sglang-0.5.9", "trtllm", "slora", "peft")
"""Those whose profile states no time of the host for each step."""


def drawn(draw: random.Random) -> tuple[gs.Deployment, dict[str, Any], int]:
    """A deployment, requests that one step with prompts holds, in as many sequences as are captured, and adapters."""
    batch, rank = draw.choice((1, 1, 2, 4, 8, 16)), draw.choice((8, 16, 64))
    adapters = draw.choice((0, 0, 1))
    strategy = draw.choice(("dynamic", "merge"))
    lora = gs.LoraConfig(
        rank=rank, target_modules=["attn"], strategy=strategy, max_loras=8 if strategy == "dynamic" else 0
    )
    tp = draw.choice((1, 2, 4))
    ep = draw.choice((1, tp, 2 * tp))
    deployment = gs.Deployment(
        draw.choice(MODELS), draw.choice(("h100-sxm", "h200-sxm", "b200-sxm", "a100-sxm-80gb", "l40s", "mi300x")),
        engine=draw.choice(ENGINES), parallelism=gs.Parallelism(tp=tp, ep=ep, cp=1 if ep > 1 else draw.choice((1, 2))),
        lora=lora if adapters else None, precision=draw.choice((None, None, "fp8", "bf16,kv=fp8", "int4")),
    )  # fmt: skip
    inputs = draw.choice((1, 16, 128, 1024)) if batch == 1 else draw.choice((1, 16, 96))  # whole tiles, see `prices`
    return deployment, {"batch": batch, "input_tokens": inputs, "output_tokens": draw.choice((1, 2, 40))}, adapters


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_batch_that_arrives_at_once_is_answered_as_estimated(seed: int) -> None:
    draw, compared = random.Random(seed), 0
    for _ in range(40):
        try:
            deployment, requests, adapters = drawn(draw)
            estimate = gs.simulate(deployment, **requests)
            told = {"adapters": 1} if adapters else {}
            answered = last_round(
                deployment, requests["batch"], requests["input_tokens"], requests["output_tokens"], **told
            )
        except gs.ConfigError:  # what an engine does not run, or does not fit
            continue
        check(estimate, answered, tolerance=0.01)  # tables never fall with the context, as some measured kernels do
        compared += 1
    assert compared >= 8


@pytest.mark.slow
def test_each_of_several_adapters_counts_as_estimated() -> None:
    lora = gs.LoraConfig(rank=16, active_adapters=4, max_loras=4)
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", lora=lora)
    found = last_round(deployment, 16, 50, 20, adapters=4, popularity="uniform")
    assert found["adapter"].nunique() == 4
    check(gs.simulate(deployment, batch=16, input_tokens=50, output_tokens=20), found)


@pytest.mark.slow
@pytest.mark.parametrize(("tp", "ep", "batch"), [(4, 8, 8), (1, 8, 64), (1, 8, 3)])
def test_attention_replicas_share_the_requests(tp: int, ep: int, batch: int) -> None:
    deployment = gs.Deployment("qwen3-30b-a3b", "h200-sxm", parallelism=gs.Parallelism(tp=tp, ep=ep))
    told = gs.simulate(deployment, batch=batch, input_tokens=100, output_tokens=20)
    check(told, last_round(deployment, batch, 100, 20))


@pytest.mark.slow
def test_attention_replicas_have_a_cache_each_and_prompts_of_one_size() -> None:
    deployment = gs.Deployment("qwen3-30b-a3b", "h200-sxm", parallelism=gs.Parallelism(tp=1, ep=8))
    traffic = gs.Traffic.closed(concurrency=2, requests=2, input_tokens=20_000, output_tokens=2)
    found = gs.serve(deployment, traffic)
    cache = found.rules.kv_blocks * found.rules.block_tokens
    assert cache == 8 * gs.footprint(deployment).kv_tokens > found.rules.max_model_len
    assert found.steps["prompt_tokens"].max() == 2 * 8192
    assert any("spread evenly over 8 attention replicas" in note for note in found.notes)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "vllm-0.11", "vllm-0.8", "vllm-0.7", "sglang", "trtllm"])
@pytest.mark.parametrize("draft", ["llama-3.2-1b", EAGLE3, MEDUSA, "ngram"])
@pytest.mark.parametrize("acceptance", [0.0, 1.0])
def test_a_drafting_server_answers_as_estimated(engine: str, draft: Any, acceptance: float) -> None:
    given, host = speculation(draft, acceptance=acceptance), load_profile(engine).host
    deployment, step_s = gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine), host.step_s + host.sequence_s
    for inputs, outputs in ((500, 1), (500, 2), (1000, 101)):
        found = last_round(deployment, 1, inputs, outputs, speculation=given)
        told = gs.simulate(deployment, batch=1, input_tokens=inputs, output_tokens=outputs, speculation=given)
        steps = 1 + ceil((outputs - 1) / float(given.tokens_per_step))
        assert found["e2e_s"].iloc[0] - step_s * steps == pytest.approx(float(told.latency_s), rel=TOLERANCE)
        assert found["ttft_s"].iloc[0] - step_s == pytest.approx(float(told.ttft_s), rel=TOLERANCE)


def sent(word: str) -> gs.Deployment:
    engine = {"base": "vllm", "name": word, "scheduler": {"sent_with_draft": word, "sent_with_heads": word}}
    return gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine)


@pytest.mark.slow
@pytest.mark.parametrize("draft", ["llama-3.2-1b", EAGLE3])
def test_a_first_token_waits_for_what_the_engine_drafts_before_it_is_sent(draft: Any) -> None:
    given = speculation(draft)
    asked = {"batch": 4, "input_tokens": 300, "output_tokens": 50}
    plain = gs.simulate(LLAMA, **asked)
    found = {word: gs.simulate(sent(word), **asked, speculation=given) for word in ("sampled", "read", "drafted")}
    told = found["read"].speculation
    assert told is not None
    assert found["sampled"].ttft_s == plain.ttft_s
    assert found["read"].ttft_s == pytest.approx(plain.ttft_s + told.draft_prompt_s)
    assert 0 < found["drafted"].ttft_s - found["read"].ttft_s < told.draft_s  # all passes but the one that reads
    assert found["sampled"].latency_s < found["read"].latency_s < found["drafted"].latency_s


@pytest.mark.slow
def test_sending_tokens_ahead_of_the_draft_makes_none_of_them_later() -> None:
    """Under load too, where drafting delays the next step all the same: the device takes as long for all of them."""
    traffic = gs.Traffic.poisson(rate=10, requests=80, input_tokens=(50, 400), output_tokens=(5, 60), seed=3)
    first, last = (gs.serve(sent(word), traffic, speculation=speculation(EAGLE3)) for word in ("sampled", "drafted"))
    assert first.summary()["mean_ttft_ms"] < last.summary()["mean_ttft_ms"]
    assert first.summary()["mean_e2el_ms"] < last.summary()["mean_e2el_ms"]
    starts, ends = first.log.runs, last.log.runs
    assert len(starts) == pytest.approx(len(ends), rel=0.1)
    assert first.summary()["duration"] == pytest.approx(last.summary()["duration"], rel=0.01)


@pytest.mark.parametrize("engine", ["vllm-0.7", "vllm-0.5", "trtllm"])
def test_prompts_that_are_not_split_take_one_step(engine: str) -> None:
    """Whatever the limit of tokens of a step; the host launches its kernels once."""
    deployment, host = gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine), load_profile(engine).host
    found = last_round(deployment, 1, 20_000, 1)
    told = gs.simulate(deployment, input_tokens=20_000, output_tokens=1)
    assert found["ttft_s"].iloc[0] - host.step_s - host.sequence_s == pytest.approx(float(told.ttft_s), rel=TOLERANCE)


@pytest.mark.parametrize("engine", ["vllm-0.8", "vllm-0.5", "sglang-0.4"])
def test_a_step_over_time_takes_the_hosts_own_time_beside_the_estimate(engine: str) -> None:
    deployment, host = gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine), load_profile(engine).host
    told = gs.simulate(deployment, batch=4, input_tokens=100, output_tokens=30)
    own_s = host.step_s + 4 * host.sequence_s
    assert own_s > 0
    found = last_round(deployment, 4, 100, 30)
    assert found["tpot_s"].to_numpy() == pytest.approx(float(told.tpot_s) + own_s, rel=TOLERANCE)
    assert found["ttft_s"].to_numpy() == pytest.approx(float(told.ttft_s) + own_s, rel=TOLERANCE)


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_workers_apart_that_hand_over_for_nothing_answer_as_one(engine: str) -> None:
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine)
    found = last_round(deployment, 1, 500, 40, prefill=deployment, prefill_replicas=1, transfer=FREE)
    check(gs.simulate(deployment, input_tokens=500, output_tokens=40), found)
