"""Advice on a server: each change that it names does what it says when it is made by hand."""

from __future__ import annotations

from typing import Any

import pytest

import graphsim as gs
from graphsim.serving.advice import advice_of
from graphsim.serving.changes import flag_text
from graphsim.serving.serve import serving_of

LORA = gs.LoraConfig(rank=8, target_modules=["attn"], max_loras=1)


def traffic(**given: Any) -> gs.Traffic:
    usual = {"rate": 20.0, "requests": 200, "input_tokens": 64, "output_tokens": 16, "adapters": 6}
    return gs.Traffic.poisson(**{**usual, **given})


@pytest.mark.slow
def test_too_few_slots_are_found_and_more_are_what_helps() -> None:
    serving = serving_of("gpt-2", "l4", traffic(), lora=LORA)
    found = advice_of(serving, serving.run(), {"ttft_s": 0.2})
    assert found.seen.limit in ("slots", "loads") and found.tried >= 6 and not found.failed
    best = found.levers[0]
    assert best.outcome.attainment is not None and found.now.attainment is not None
    assert best.outcome.attainment > found.now.attainment
    more = next(lever for lever in found.levers if lever.name == "more slots (--max-loras 6)")
    by_hand = gs.serve("gpt-2", "l4", traffic(), lora=gs.LoraConfig(rank=8, target_modules=["attn"], max_loras=6))
    assert more.outcome.attainment == by_hand.goodput(ttft_s=0.2).share
    assert more.outcome.p99_e2e_s == pytest.approx(by_hand.summary()["p99_e2el_ms"] / 1e3)
    assert "more slots (--max-loras 6)" in str(found)
    assert found.to_dict()["levers"][0]["name"] == best.name


@pytest.mark.parametrize(
    ("engine", "setting", "value", "flag"),
    [
        ("vllm", "max_loras", 4, "--max-loras 4"),
        ("sglang", "max_loras", 4, "--max-loras-per-batch 4"),
        ("sglang", "loads", "overlapped", "--enable-lora-overlap-loading"),
        ("trtllm", "max_num_seqs", 8, "--max-batch-size 8"),
        ("vllm", "eviction", "lfu", "eviction lfu, for which vllm has no flag"),
    ],
)
def test_flags_are_those_of_the_engine(engine: str, setting: str, value: Any, flag: str) -> None:
    serving = serving_of("gpt-2", "l4", traffic(adapters=0), engine=engine)
    assert flag_text(serving, setting, value) == flag


@pytest.mark.slow
def test_long_runs_are_judged_by_their_first_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphsim.serving.advice.MOST_REQUESTS", 50)
    serving = serving_of("gpt-2", "l4", traffic(adapters=0))
    found = advice_of(serving, serving.run(), {})
    assert found.notes == ("changes were simulated on the first 50 requests",)


@pytest.mark.slow
def test_an_interruption_leaves_what_was_simulated() -> None:
    serving = serving_of("gpt-2", "l4", traffic(adapters=0, requests=50))

    def progress(done: int, name: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    found = advice_of(serving, serving.run(), {}, progress)
    assert found.tried == 1 and found.notes == ("interrupted: not all changes were simulated",)
