"""`gs.capacity`: the value found keeps the limits, a little more does not, and what has no answer says why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import graphsim as gs


def traffic(**given: Any) -> gs.Traffic:
    return gs.Traffic.poisson(**{"rate": 20.0, "requests": 300, "input_tokens": 64, "output_tokens": 16, **given})


@pytest.fixture(scope="module")
def small() -> gs.Deployment:
    """A server with few places, so that a queue comes early."""
    return gs.Deployment("gpt-2", "l4")


LIMITS = gs.EngineLimits(max_num_seqs=4)


@pytest.mark.slow
def test_the_rate_found_keeps_the_limits_and_a_little_more_does_not(small: gs.Deployment) -> None:
    found = gs.capacity(small, traffic(), ttft_s=0.1, attainment=0.9, limits=LIMITS)
    assert found.over == "rate" and found.saturates
    assert found.service.goodput(ttft_s=0.1).share >= 0.9
    for factor, keeps in ((0.9, True), (1.05, False)):
        served = gs.serve(small, traffic().scaled(factor * found.value / 20.0), limits=LIMITS)
        assert (served.goodput(ttft_s=0.1).share >= 0.9) is keeps, factor
    kept = found.tried["kept"].to_numpy()
    assert found.tried["rate"].is_monotonic_increasing and kept[: kept.sum()].all() and not kept[kept.sum() :].any()
    assert len(kept) <= 14 and str(found).endswith("requests/s")
    assert found.to_dict()["value"] == found.value


@pytest.mark.slow
def test_an_executor_finds_the_same(small: gs.Deployment) -> None:
    with ThreadPoolExecutor(2) as executor:
        found = gs.capacity(small, traffic(), ttft_s=0.1, attainment=0.9, limits=LIMITS, executor=executor)
    alone = gs.capacity(small, traffic(), ttft_s=0.1, attainment=0.9, limits=LIMITS)
    assert found.value == pytest.approx(alone.value, rel=0.03)
    assert found.service.goodput(ttft_s=0.1).share >= 0.9


@pytest.mark.slow
def test_a_closed_loop_is_searched_for_its_concurrency(small: gs.Deployment) -> None:
    closed = gs.Traffic.closed(concurrency=2, requests=100, input_tokens=64, output_tokens=16)
    alone = gs.serve(small, closed).summary()["mean_ttft_ms"] / 1e3
    found = gs.capacity(small, closed, ttft_s=4.0 * alone, attainment=0.9, limits=LIMITS)
    assert found.over == "concurrency" and found.value == int(found.value) >= 4
    more = gs.serve(small, closed.scaled((found.value + 1) / 2), limits=LIMITS)
    assert more.concurrency == found.value + 1
    assert more.goodput(ttft_s=4.0 * alone).share < 0.9


@pytest.mark.slow
def test_adapters_are_searched_over_a_text_of_popularity() -> None:
    lora = gs.LoraConfig(rank=8, target_modules=["attn"], max_loras=2)
    asked = traffic(adapters=2, requests=100)
    found = gs.capacity("gpt-2", "l4", asked, lora=lora, ttft_s=0.1, attainment=0.9, over="adapters")
    assert found.over == "adapters" and 2 <= found.value < 100
    with pytest.raises(gs.ConfigError, match="have a rate each"):
        gs.capacity("gpt-2", "l4", traffic(adapters=2, popularity=[1, 2]), lora=lora, ttft_s=0.1, over="adapters")


@pytest.mark.slow
def test_what_has_no_answer_says_why(small: gs.Deployment) -> None:
    with pytest.raises(gs.InfeasibleError, match=r"nothing keeps TTFT 1 µs for 99% of the requests: at .* 0.0% do"):
        gs.capacity(small, traffic(requests=20), ttft_s=1e-6)
    found = gs.capacity(small, traffic(requests=20), ttft_s=10.0)
    assert not found.saturates and str(found).startswith("at least ")
    assert "they are too few to fill the server" in found.notes[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "capacity needs a limit: ttft_s"),
        ({"ttft_s": 0.0}, "ttft_s = 0 is not allowed"),
        ({"ttft_s": 1.0, "attainment": 1.5}, "attainment = 1.5 is not allowed"),
        ({"ttft_s": 1.0, "over": "luck"}, "over = 'luck' is not known; allowed: adapters, rate"),
        ({"ttft_s": 1.0, "executor": 3}, "executor = 3 is not a concurrent.futures.Executor"),
    ],
)
def test_wrong_questions_are_one_sentence(small: gs.Deployment, given: dict[str, Any], words: str) -> None:
    with pytest.raises(gs.ConfigError) as caught:
        gs.capacity(small, traffic(), **given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_requests_that_come_at_once_have_no_rate_to_raise(small: gs.Deployment) -> None:
    with pytest.raises(gs.ConfigError, match="not all at once"):
        gs.capacity(small, traffic(rate=float("inf")), ttft_s=1.0)
