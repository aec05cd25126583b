"""Laws of speculation over time: draws of accepted tokens, their steps, blocks and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsim as gs

TARGET = gs.Deployment("llama-3.1-8b", "h100-sxm", engine="vllm")
TRAFFIC = gs.Traffic.closed(concurrency=12, requests=60, input_tokens=(100, 300), output_tokens=(20, 120), seed=1)
TIGHT = {"vllm": 120, "sglang": 1800, "trtllm": 60, "vllm-0.8": 120}
"""Blocks of the cache that are too few for all, by engine."""


def speculation(draft: Any = "llama-3.2-1b", tokens: Any = 3, acceptance: Any = 0.7, **more: Any) -> gs.Speculation:
    return gs.Speculation(draft=draft, tokens=tokens, acceptance=acceptance, **more)


def serve(given: gs.Speculation | None = None, deployment: gs.Deployment = TARGET, **more: Any) -> gs.Service:
    return gs.serve(deployment, more.pop("traffic", TRAFFIC), speculation=given, **more)


def generated(service: gs.Service) -> int:
    """Tokens behind the first one of each request."""
    return int((service.requests["output_tokens"] - 1).sum())


def sequence_steps(service: gs.Service) -> int:
    """Steps of generation, counted for each sequence."""
    steps = service.steps
    return int((steps["steps"] * steps["batch"]).sum())


def test_no_drafted_token_is_no_speculation() -> None:
    plain, none = serve(), serve(speculation(tokens=0))
    assert np.array_equal(plain.log.finished_s, none.log.finished_s)
    assert plain.rules == none.rules
    assert np.array_equal(serve(speculation(tokens=0), engine=None).log.finished_s, plain.log.finished_s)


def test_nothing_accepted_is_a_step_for_each_token_and_never_faster() -> None:
    plain = serve()
    for draft in ("llama-3.2-1b", "ngram"):
        found = serve(speculation(draft, acceptance=0.0))
        assert sequence_steps(found) == generated(found)
        assert found.summary()["mean_tpot_ms"] >= plain.summary()["mean_tpot_ms"]


def test_all_accepted_is_a_step_for_every_k_plus_1_tokens() -> None:
    found = serve(speculation(tokens=4, acceptance=1.0))
    steps = np.ceil((found.requests["output_tokens"] - 1) / 5)
    assert sequence_steps(found) == int(steps.sum())
    assert found.summary()["mean_tpot_ms"] < serve().summary()["mean_tpot_ms"]


@pytest.mark.parametrize("acceptance", [0.6, [0.9, 0.6, 0.3], {0: 0.5, 3: 0.5}])
def test_mean_tokens_of_a_step_are_those_expected(acceptance: Any) -> None:
    given = speculation("ngram", acceptance=acceptance)
    long = gs.Traffic.closed(concurrency=20, requests=60, input_tokens=50, output_tokens=400)
    found = serve(given, traffic=long)
    expected = float(given.steps_for(399.0))
    assert sequence_steps(found) / 60 == pytest.approx(expected, rel=0.03)
    assert 399 / expected == pytest.approx(float(given.tokens_per_step), rel=0.02)


def test_the_engine_alone_is_as_the_estimate() -> None:
    """One request at a time: time per token as `simulate` says, up to the host's own time of each step."""
    given = speculation(acceptance=0.8)
    alone = gs.Traffic.closed(concurrency=1, requests=30, input_tokens=500, output_tokens=200)
    found = serve(given, traffic=alone).summary()["mean_tpot_ms"]
    told = gs.simulate(TARGET, batch=1, input_tokens=500, output_tokens=200, speculation=given)
    assert found == pytest.approx(1e3 * told.tpot_s, rel=0.15)


def test_a_seed_gives_the_same_run() -> None:
    one, other, third = (serve(speculation(seed=seed)) for seed in (5, 5, 6))
    assert np.array_equal(one.log.finished_s, other.log.finished_s)
    assert not np.array_equal(one.log.finished_s, third.log.finished_s)


@pytest.mark.parametrize("engine", TIGHT)
@pytest.mark.parametrize("tokens", [1, 5])
def test_blocks_are_given_back_where_they_are_scarce(engine: str, tokens: int) -> None:
    deployment = replace(TARGET, engine=engine)
    limits = gs.EngineLimits(kv_blocks=TIGHT[engine])
    found = serve(speculation("ngram", tokens=tokens), deployment, limits=limits)
    assert (found.requests["status"] == "finished").all()
    assert found.steps["kv_blocks"].max() <= TIGHT[engine]
    assert found.steps["kv_blocks"].iloc[-1] == 0
    assert found.steps["kv_blocks"].max() > 0.7 * TIGHT[engine]
    if engine.startswith("vllm"):
        assert found.log.preemptions.sum() > 0


def test_drafted_rows_take_places_of_a_step_and_blocks() -> None:
    plain = serve()
    drafted, copied = serve(speculation()), serve(speculation("ngram"))
    assert drafted.rules.kv_blocks < plain.rules.kv_blocks
    assert copied.rules.kv_blocks == plain.rules.kv_blocks
    few = serve(speculation("ngram", tokens=7), limits=gs.EngineLimits(max_num_batched_tokens=64, max_num_seqs=64))
    assert few.steps["batch"].max() <= 64 // 8
    given = serve(speculation(), limits=gs.EngineLimits(kv_tokens=32_000))
    assert given.rules.kv_blocks == 2000


def test_a_model_without_a_cache_leaves_room_for_its_drafts() -> None:
    """Nothing of the target grows with the context: the blocks are the draft's alone."""
    mamba = gs.Deployment("codestral-mamba-7b", "h100-sxm", engine="vllm")
    copied, drafted = (serve(speculation(draft), mamba) for draft in ("ngram", "mistral-7b-v0.3"))
    assert (copied.requests["status"] == "finished").all() and (drafted.requests["status"] == "finished").all()
    alone = gs.footprint("mistral-7b-v0.3", "h100-sxm", engine="vllm")
    free = gs.footprint(mamba).kv_bytes - alone.weights_bytes
    assert drafted.rules.kv_blocks == free // (16 * alone.kv_token_bytes)


def test_gaps_are_those_between_steps() -> None:
    found = serve(speculation(acceptance=0.9))
    summary = found.summary()
    assert summary["mean_itl_ms"] > 2 * summary["mean_tpot_ms"]
    seconds = found.log.finished_s - found.log.first_token_s
    gaps = np.asarray(found.log.gaps, dtype=float)
    assert gaps[:, 0] @ gaps[:, 1] == pytest.approx(seconds.sum())


def test_files_have_a_gap_for_each_burst(tmp_path: Path) -> None:
    found = serve(speculation(acceptance=0.9))
    document = json.loads(found.to_json(tmp_path / "bench.json", details=True).read_text())
    assert sum(map(len, document["itls"])) < generated(found)
    for gaps, first, request in zip(document["itls"], document["ttfts"], found.requests.itertuples(), strict=True):
        assert first + sum(gaps) == pytest.approx(request.e2e_s, abs=1e-6)
        assert all(gap > 0 for gap in gaps)


def test_an_adapter_is_served_beside_a_draft() -> None:
    traffic = gs.Traffic.closed(
        concurrency=8, requests=40, input_tokens=200, output_tokens=60, adapters=6, popularity="zipf:1.2"
    )
    lora = gs.LoraConfig(rank=16, max_loras=4)
    plain, found = (serve(each, replace(TARGET, lora=lora), traffic=traffic) for each in (None, speculation()))
    assert (found.requests["status"] == "finished").all()
    assert found.summary()["mean_tpot_ms"] < plain.summary()["mean_tpot_ms"]
    assert any("the draft runs without an adapter" in note for note in found.notes)
    with pytest.raises(gs.ConfigError, match="speculation with strategy"):
        serve(speculation(), replace(TARGET, lora=lora), traffic=traffic, strategy="merged")


def test_capacity_and_comparisons_take_it() -> None:
    open_loop = gs.Traffic.poisson(rate=4, requests=60, input_tokens=300, output_tokens=60)
    given = speculation("ngram", tokens=2, acceptance=0.8)
    plain, found = (
        gs.capacity(TARGET, open_loop, tpot_s=0.02, speculation=each).value for each in (None, given)
    )  # fmt: skip
    assert found > plain
    frame = gs.compare_serving(TARGET, open_loop, vary={"max_num_seqs": [8, 64]}, speculation=given)
    assert (frame["completed"] == 60).all()


def test_arrays_of_scenarios_are_refused() -> None:
    with pytest.raises(gs.ConfigError, match=r"serve: speculation.tokens = .* holds several scenarios"):
        serve(speculation(tokens=np.array([1, 2])))


def test_a_draft_that_leaves_no_cache_is_refused() -> None:
    small = gs.Deployment("llama-3.1-8b", "rtx-4090", engine="vllm")
    with pytest.raises(gs.InfeasibleError, match="leave no room for a KV cache"):
        serve(speculation("llama-3.1-8b"), small)
