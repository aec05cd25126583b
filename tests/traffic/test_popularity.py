"""Which adapters are wanted, how that changes, and what ranks they have."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.lora.popularity import power, zipf
from graphsim.traffic.popularity import Drift
from graphsim.traffic.traffic import Traffic

MANY = 100_000


def traffic(**further: Any) -> Traffic:
    return Traffic.poisson(**{"rate": 10.0, "requests": MANY, "input_tokens": 1, "output_tokens": 1} | further)


def shares(found: Traffic) -> np.ndarray[Any, Any]:
    return np.bincount(found.table().adapter, minlength=len(found.adapters)) / len(found.table())


@pytest.mark.parametrize(
    ("popularity", "expected"),
    [
        ("uniform", np.full(8, 1 / 8)),
        ("zipf:1.2", zipf(8, 1.2)),
        ("power:0.5", power(8, 0.5)),
        ("one", np.eye(8)[0]),
        ("geometric:2", 0.5 ** np.arange(8) / (2 - 0.5**7)),
        ("skewed", 1.5 ** -np.arange(8.0) / np.sum(1.5 ** -np.arange(8.0))),
        ("round_robin", np.full(8, 1 / 8)),
        ([1, 2, 3, 4, 0, 0, 5, 5], np.array([1, 2, 3, 4, 0, 0, 5, 5]) / 20),
    ],
)
def test_adapters_are_wanted_as_often_as_they_are_popular(popularity: Any, expected: Any) -> None:
    assert shares(traffic(adapters=8, popularity=popularity)) == pytest.approx(expected, abs=0.006)


def test_round_robin_goes_round() -> None:
    assert traffic(adapters=3, popularity="round_robin").table().adapter[:7].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_rates_say_the_rate_where_none_is_given() -> None:
    found = traffic(rate=None, requests=None, seconds=1000, popularity=[3.0, 1.0, 0.5])
    assert found.request_rate == pytest.approx(4.5) and len(found.table()) == 4500
    assert shares(found) * 4.5 == pytest.approx([3.0, 1.0, 0.5], abs=0.15)
    named = traffic(rate=None, requests=450, popularity={"law": 3.0, "code": 1.5})
    assert named.adapters == ("law", "code") and named.table().arrival_s[-1] == pytest.approx(100.0)


def test_poisson_processes_of_adapters_are_poisson() -> None:
    table = traffic(rate=None, popularity=[9.0, 1.0]).table()
    gaps = np.diff(table.arrival_s[table.adapter == 1])
    assert gaps.mean() == pytest.approx(1.0, rel=0.03) and gaps.std() == pytest.approx(1.0, rel=0.05)


def test_a_part_of_the_requests_wants_no_adapter() -> None:
    table = traffic(adapters=4, base_share=0.3).table()
    assert np.mean(table.adapter == -1) == pytest.approx(0.3, abs=0.006)
    assert (table.adapter == traffic(adapters=4).table().adapter)[table.adapter >= 0].all()
    assert (traffic(requests=9).table().adapter == -1).all()


def test_ranks_move_on_every_so_many_seconds() -> None:
    table = traffic(adapters=10, popularity=Drift(popularity="zipf:2", every_s=2500.0, shift=3)).table()
    hottest = [
        Counter(table.adapter[table.arrival_s // 2500 == part].tolist()).most_common(1)[0][0] for part in range(4)
    ]
    assert hottest == [0, 3, 6, 9]


def test_popularity_moves_from_one_to_another() -> None:
    moving = Drift(popularity=[1.0, 0.0], to=[0.0, 1.0], over_s=5000.0)
    table = traffic(adapters=2, popularity=moving).table()
    parts = [
        table.adapter[(table.arrival_s >= at) & (table.arrival_s < at + 1000)].mean() for at in range(0, 10_000, 1000)
    ]
    assert parts == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9, 1, 1, 1, 1, 1], abs=0.02)


@settings(deadline=None, max_examples=40)
@given(
    adapters=st.integers(1, 60),
    given_shares=st.dictionaries(st.sampled_from([8, 16, 32, 64]), st.floats(0.01, 1.0), min_size=1),
)
def test_ranks_by_share_are_as_many_as_the_shares_say(adapters: int, given_shares: dict[int, float]) -> None:
    ranks = traffic(requests=1, adapters=adapters, ranks=given_shares).ranks
    assert ranks is not None and len(ranks) == adapters
    total = sum(given_shares.values())
    for rank, share in given_shares.items():
        assert abs(ranks.count(rank) - adapters * share / total) < 1.0


def test_ranks_in_every_form() -> None:
    found = [traffic(requests=1, adapters=4, ranks=ranks).ranks for ranks in (16, [8, 16, 32, 64], "8/16/32", None)]
    assert found == [(16, 16, 16, 16), (8, 16, 32, 64), (8, 16, 32, 8), None]


def test_more_adapters_change_nothing_else() -> None:
    few, many = traffic(requests=500, adapters=4, input_tokens=(1, 99)), traffic(requests=500, input_tokens=(1, 99))
    for found in (many, few.with_adapters(100)):
        assert np.array_equal(found.table().arrival_s, few.table().arrival_s)
        assert np.array_equal(found.table().input_tokens, few.table().input_tokens)
    assert len(few.with_adapters(100).adapters) == 100 and few.with_adapters(100).table().adapter.max() > 50


def test_with_adapters_deals_ranks_on() -> None:
    assert traffic(requests=1, adapters=3, ranks="8/16/32").with_adapters(5).ranks == (8, 16, 32, 8, 16)
    with pytest.raises(ConfigError, match="3 adapters have a rate each"):
        traffic(rate=None, popularity=[1, 2, 3]).with_adapters(5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"adapters": -1}, "adapters = -1"),
        ({"adapters": 2.5}, "adapters = 2.5"),
        ({"adapters": ["a", "a"]}, "a name for each"),
        ({"adapters": 3, "popularity": [1, 2]}, "2 rates for 3 adapters"),
        ({"adapters": 3, "popularity": [1, 2, -1]}, "popularity = "),
        ({"adapters": 3, "popularity": [0, 0, 0]}, "not all 0"),
        ({"adapters": 3, "popularity": "zapf:1"}, "expected uniform"),
        ({"adapters": 3, "popularity": "geometric:0.5"}, "a number from 1"),
        ({"adapters": 3, "popularity": "skewed:x"}, "a number from 1"),
        ({"adapters": 3, "popularity": "zipf:x"}, "zipf:1.5"),
        ({"adapters": 3, "popularity": "zipf:-1"}, "exponent = -1"),
        ({"adapters": 3, "popularity": 5}, "popularity = 5"),
        ({"adapters": 2, "popularity": {"a": 1}}, "1 rates for 2 adapters"),
        ({"popularity": "zipf:1.2"}, "there are none"),
        ({"adapters": ["law", "code"], "popularity": {"laws": 1}}, "'laws'; did you mean 'law'"),
        ({"adapters": 3, "base_share": 1.5}, "base_share = 1.5"),
        ({"ranks": 8}, "there are none"),
        ({"adapters": 3, "ranks": [8, 16]}, "2 ranks for 3 adapters"),
        ({"adapters": 3, "ranks": 0}, "0 is not allowed"),
        ({"adapters": 3, "ranks": "8/x"}, "'x' is not allowed"),
        ({"adapters": 3, "ranks": {8: -1}}, "not allowed"),
        ({"adapters": 3, "ranks": {}}, "ranks = {}"),
        ({"adapters": 3, "popularity": Drift(popularity=[1, 2], every_s=5)}, "2 rates for 3 adapters"),
    ],
)
def test_adapters_that_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        traffic(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "every_s"), ({"to": "uniform"}, "over_s"), ({"over_s": 5}, "over_s"), ({"every_s": 0}, "every_s = 0"),
        ({"every_s": 5, "to": "uniform", "over_s": 3}, "not both"), ({"to": 4, "over_s": 3}, "popularity = 4"),
    ],
)  # fmt: skip
def test_drifts_that_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Drift(**given)


def test_a_closed_loop_has_no_times_to_drift_by() -> None:
    with pytest.raises(ConfigError, match="Drift needs an open one"):
        Traffic.closed(
            concurrency=2, requests=9, input_tokens=1, output_tokens=1, adapters=3, popularity=Drift(every_s=5)
        )
