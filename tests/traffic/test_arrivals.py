"""When requests come: gaps, stages, ramps and bursts, against what their rates say."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.traffic.client import Client
from graphsim.traffic.rates import Bursts, Ramp, Stage
from graphsim.traffic.sessions import Sessions
from graphsim.traffic.traffic import Traffic

RATES = st.floats(0.01, 1e4)
SHAPES = st.one_of(st.floats(0.05, 50.0), st.just(inf))


def times(rate: Any, **further: Any) -> np.ndarray[Any, Any]:
    return Traffic.poisson(rate=rate, input_tokens=1, output_tokens=1, **further).table().arrival_s


@settings(deadline=None, max_examples=60)
@given(rate=RATES, requests=st.integers(1, 400), burstiness=SHAPES, seed=st.integers(0, 2**32))
def test_gaps_sum_to_requests_over_rate(rate: float, requests: int, burstiness: float, seed: int) -> None:
    found = times(rate, requests=requests, burstiness=burstiness, seed=seed)
    assert len(found) == requests
    assert found[-1] == pytest.approx(requests / rate, rel=1e-9)
    assert found[0] >= 0 and (np.diff(found) >= 0).all()


@pytest.mark.parametrize("burstiness", [0.1, 0.5, 1.0, 4.0, 50.0])
def test_gaps_have_the_spread_of_their_shape(burstiness: float) -> None:
    gaps = np.diff(times(3.0, requests=200_000, burstiness=burstiness), prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / 3.0, rel=1e-9)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.03)


def test_poisson_gaps_have_no_memory() -> None:
    gaps = np.diff(times(1.0, requests=100_000), prepend=0.0)
    assert [np.mean(gaps > t) for t in (0.5, 1.0, 3.0)] == pytest.approx([0.6065, 0.3679, 0.0498], abs=0.006)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.015


def test_constant_gaps_are_constant() -> None:
    assert np.allclose(np.diff(times(4.0, requests=100, burstiness=inf), prepend=0.0), 0.25)


def test_an_endless_rate_sends_all_at_once() -> None:
    assert not times(inf, requests=10).any()


def test_a_client_that_does_not_rescale_leaves_the_gaps_as_they_fall() -> None:
    ends = [times(10.0, requests=100, seed=seed, client=Client(rescales=False))[-1] for seed in range(100)]
    assert np.mean(ends) == pytest.approx(10.0, rel=0.04) and np.std(ends) == pytest.approx(1.0, rel=0.3)
    counts = [len(times(10.0, seconds=10.0, seed=seed, client=Client(rescales=False))) for seed in range(100)]
    assert np.mean(counts) == pytest.approx(100, rel=0.04) and np.var(counts) == pytest.approx(100, rel=0.5)


def test_seconds_say_how_many_requests_there_are() -> None:
    found = times(7.5, seconds=3600)
    assert len(found) == 27_000 and found[-1] == pytest.approx(3600)


@settings(deadline=None, max_examples=40)
@given(
    stages=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 50)), min_size=1, max_size=5).filter(
        lambda stages: any(rate for rate, _ in stages)
    ),
    burstiness=SHAPES,
)
def test_each_stage_has_its_requests_within_its_seconds(stages: list[tuple[int, int]], burstiness: float) -> None:
    found = times(stages, burstiness=burstiness)
    starts = np.cumsum([0, *(seconds for _, seconds in stages)])
    ends = np.cumsum([0, *(rate * seconds for rate, seconds in stages)])
    assert len(found) == ends[-1]
    for stage in range(len(stages)):
        here = found[ends[stage] : ends[stage + 1]]
        assert not len(here) or starts[stage] - 1e-6 <= here.min() <= here.max() == pytest.approx(starts[stage + 1])


def test_fewer_requests_than_the_stages_have_end_early() -> None:
    found = times([(2, 10), (8, 10)], requests=40, burstiness=inf)
    assert len(found) == 40 and found[19] == pytest.approx(10.0) and found[39] == pytest.approx(12.5)


def test_a_ramp_over_requests_follows_vllm_bench_serve() -> None:
    found = times(Ramp(1.0, 4.0), requests=4, burstiness=inf)
    assert found == pytest.approx(np.cumsum([1 / 1, 1 / 2, 1 / 3, 1 / 4]))
    found = times(Ramp(1.0, 8.0, "exponential"), requests=4, burstiness=inf)
    assert found == pytest.approx(np.cumsum([1 / 1, 1 / 2, 1 / 4, 1 / 8]))


def test_a_ramp_over_seconds_has_the_integral_of_its_rate() -> None:
    found = times(Ramp(10.0, 25.0), seconds=20, burstiness=inf)
    assert len(found) == 350 and np.searchsorted(found, 10.0) == pytest.approx(10 * 10 + 15 * 100 / 40, abs=1)
    found = times(Ramp(10.0, 40.0, "exponential"), seconds=20, burstiness=inf)
    whole = 20 * 30 / np.log(4)
    assert len(found) == round(whole) and np.searchsorted(found, 10.0) == pytest.approx(whole / 3, abs=1)


@settings(deadline=None, max_examples=50)
@given(
    rate=st.one_of(
        st.floats(0.1, 100), st.builds(Ramp, st.floats(0, 50), st.floats(0.1, 50)),
        st.builds(Ramp, st.floats(0.1, 50), st.floats(0.1, 50), st.just("exponential")),
    ),
    seconds=st.floats(0.1, 1e3), part=st.floats(0.0, 1.0),
)  # fmt: skip
def test_when_is_the_inverse_of_due(rate: float | Ramp, seconds: float, part: float) -> None:
    stage = Stage(rate, seconds)
    at = np.array(part * seconds)
    assert stage.when(stage.due_at(at)) == pytest.approx(at, rel=1e-5, abs=1e-5 * seconds)


def test_bursts_come_when_they_should() -> None:
    bursts = Bursts(rate=1.0, burst_rate=50.0, every_s=60.0, burst_s=6.0)
    found = times(bursts, requests=1000)
    loud = (found % 60.0 > 54.0) | (np.isclose(found % 60.0, 0.0) & (found > 0))
    assert len(found) == 1000 and loud[: 3 * 354].mean() == pytest.approx(300 / 354, abs=0.02)
    assert times(bursts, seconds=57.0)[-1] == pytest.approx(57.0) and len(times(bursts, seconds=57.0)) == 54 + 150
    quiet = times(Bursts(rate=0.0, burst_rate=50.0, every_s=60.0, burst_s=6.0), requests=600)
    assert ((quiet % 60.0 >= 54.0) | np.isclose(quiet % 60.0, 0.0)).all()


def test_adapters_with_rates_have_processes_of_their_own() -> None:
    """Where gaps are no Poisson process's: each adapter's gaps have the spread, and their mixture has not."""
    rates = [4.0, 1.0, 0.0, 0.25]
    table = Traffic.poisson(
        popularity=rates,
        burstiness=0.25,
        seconds=20_000,
        input_tokens=1,
        output_tokens=1,
        client=Client(rescales=False),
    ).table()
    counts = np.bincount(table.adapter, minlength=4) / 20_000
    assert counts == pytest.approx(rates, rel=0.06, abs=1e-9)
    for adapter in (0, 1):
        gaps = np.diff(table.arrival_s[table.adapter == adapter])
        assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.06)
    assert (np.diff(table.arrival_s) >= 0).all()
    exact = Traffic.poisson(popularity=rates, burstiness=4, requests=5000, input_tokens=1, output_tokens=1).table()
    assert len(exact) == 5000 and exact.arrival_s[-1] == pytest.approx(5000 / 5.25)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": -1, "requests": 5}, "rate = -1"),
        ({"rate": 0, "requests": 5}, "rate = 0"),
        ({"rate": float("nan"), "requests": 5}, "rate = nan"),
        ({"rate": "fast", "requests": 5}, "rate = 'fast'"),
        ({"rate": None, "requests": 5}, "rate = None"),
        ({"rate": 1}, "requests"),
        ({"rate": 1, "requests": 0}, "requests = 0"),
        ({"rate": 1, "requests": 2, "seconds": 3}, "give only one of them"),
        ({"rate": 1, "seconds": -3}, "seconds = -3"),
        ({"rate": 1e9, "seconds": 1e9}, "expected a number from 1 to 100,000,000"),
        ({"rate": inf, "seconds": 3}, "all requests at once"),
        ({"rate": 1, "requests": 2, "burstiness": 0}, "burstiness = 0"),
        ({"rate": [(1, 10), (-2, 5)]}, "stage 1"),
        ({"rate": [(1, 10), (2, 0)]}, "stage 1"),
        ({"rate": [(1,)]}, "stage 0"),
        ({"rate": [(0, 10)]}, "no request"),
        ({"rate": [(1, 10)], "requests": 11}, "more than the 10"),
        ({"rate": [(1, 10)], "seconds": 11}, "give only one of them"),
        ({"rate": Ramp(0, 4), "requests": 11}, "start and end must be above 0"),
        ({"rate": Bursts(rate=0, burst_rate=1, every_s=1e-6, burst_s=1e-6), "requests": 10**7}, "cycles"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        times(**given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 220


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Ramp(1, 2, "steep"), "'steep'.*exponential"),
        (lambda: Ramp(-1, 2), "start = -1"),
        (lambda: Ramp(0, 2, "exponential"), "start = 0"),
        (lambda: Ramp(0, 0), "both 0"),
        (lambda: Bursts(rate=1, burst_rate=2, every_s=5, burst_s=6), "burst_s = 6"),
        (lambda: Bursts(rate=1, burst_rate=0, every_s=5, burst_s=1), "burst_rate = 0"),
        (lambda: Client(connections=0), "connections = 0"),
        (lambda: Client(timeout_s=0), "timeout_s = 0"),
        (lambda: Client(cutoff_s=-1), "cutoff_s = -1"),
        (lambda: Client(send_s=-1), "send_s = -1"),
        (lambda: Client(reply_s=inf), "reply_s = inf"),
    ],
)
def test_rates_and_clients_that_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


@settings(deadline=None, max_examples=60)
@given(
    stages=st.lists(st.tuples(st.floats(0, 9), st.floats(0.1, 30)), min_size=1, max_size=4).filter(
        lambda stages: sum(rate * seconds for rate, seconds in stages) >= 1
    ),
    turns=st.integers(1, 5),
    rescales=st.booleans(),
)
def test_stages_of_parts_of_requests_lose_none(stages: list[tuple[float, float]], turns: int, rescales: bool) -> None:
    table = Traffic.poisson(
        rate=stages, input_tokens=1, output_tokens=1, sessions=Sessions(turns=turns), client=Client(rescales=rescales)
    ).table()
    starts = table.arrival_s[table.after < 0]
    assert len(table) == round(sum(rate * seconds for rate, seconds in stages))
    assert (starts > 0).all() and np.isfinite(starts).all() and (np.diff(starts) >= 0).all()
    assert not rescales or starts[-1] <= sum(seconds for _, seconds in stages) * (1 + 1e-9)
