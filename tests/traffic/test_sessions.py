"""Conversations whose prompts grow, prompts that begin alike, and prompts that are sent again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.traffic.popularity import Drift
from graphsim.traffic.sessions import Sessions
from graphsim.traffic.table import NOBODY, RequestTable
from graphsim.traffic.traffic import Traffic


def chats(requests: int = 200, seed: int = 0, rate: Any = 5.0, **sessions: Any) -> Traffic:
    return Traffic.poisson(
        rate=rate, requests=requests, input_tokens=(1, 90), output_tokens=(1, 70), adapters=5, seed=seed,
        sessions=Sessions(**sessions),
    )  # fmt: skip


def common(table: RequestTable, first: int, second: int) -> int:
    """Tokens with which two prompts begin alike, as their segments say."""
    assert table.prefixes is not None
    alike = 0
    for (name, end), (other, ends) in zip(
        zip(*table.prefixes.of(first), strict=True), zip(*table.prefixes.of(second), strict=True), strict=False
    ):
        if name != other:
            break
        alike = min(end, ends)
    return alike


@settings(deadline=None, max_examples=50)
@given(
    requests=st.integers(1, 150), low=st.integers(1, 4), more=st.integers(0, 6), prefix=st.integers(0, 50),
    groups=st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_prompts_grow_by_what_was_said(requests: int, low: int, more: int, prefix: int, groups: int, seed: int) -> None:
    table = chats(
        requests, seed, turns=(low, low + more), think_s=2.5, shared_prefix_tokens=prefix, prefix_groups=groups
    ).table()
    assert len(table) == requests
    follows = np.flatnonzero(table.after != NOBODY)
    before = table.after[follows]
    assert (before < follows).all() and len(set(before.tolist())) == len(before)
    said = table.input_tokens[before] + table.output_tokens[before]
    message = table.input_tokens[follows] - said
    assert ((message >= 1) & (message <= 90)).all()
    assert np.isnan(table.arrival_s[follows]).all() and (table.think_s[follows] == 2.5).all()
    assert (table.adapter[follows] == table.adapter[before]).all()
    alone = table.after == NOBODY
    assert ((table.input_tokens[alone] - prefix >= 1) & (table.input_tokens[alone] - prefix <= 90)).all()
    assert (table.think_s[alone] == 0).all() and (np.diff(table.arrival_s[alone]) >= 0).all()
    for row in follows:
        assert common(table, int(table.after[row]), row) == table.input_tokens[table.after[row]]


def test_turns_are_as_many_as_asked_for_and_the_last_is_cut() -> None:
    table = chats(1003, turns=5).table()
    lengths = np.diff(np.append(np.flatnonzero(table.after == NOBODY), len(table)))
    assert lengths.tolist() == [5] * 200 + [3]
    spread = chats(20_000, turns="exponential:mean=4,low=1").table()
    lengths = np.diff(np.append(np.flatnonzero(spread.after == NOBODY), len(spread)))
    assert lengths.mean() == pytest.approx(4.15, rel=0.06) and lengths.max() > 15


def test_conversations_begin_so_that_requests_come_at_the_rate() -> None:
    traffic = chats(6000, rate=12.0, turns=4)
    starts = traffic.table().arrival_s[traffic.table().after == NOBODY]
    assert len(starts) == 1500 and starts[-1] == pytest.approx(500.0) and traffic.request_rate == pytest.approx(12.0)
    staged = chats(None, rate=[(2, 100), (8, 100)], turns=4)  # type: ignore[arg-type]
    starts = staged.table().arrival_s[staged.table().after == NOBODY]
    assert len(starts) == 250 and np.searchsorted(starts, 100.0, side="right") == pytest.approx(50, abs=1)


def test_pauses_are_drawn() -> None:
    table = chats(20_000, turns=10, think_s="exponential:mean=20").table()
    pauses = table.think_s[table.after != NOBODY]
    assert pauses.mean() == pytest.approx(20.0, rel=0.03) and pauses.std() == pytest.approx(20.0, rel=0.03)


def test_prompts_of_a_group_share_its_prefix_and_nothing_else() -> None:
    table = chats(300, shared_prefix_tokens=[40, 60, 80], prefix_groups=3, popularity="round_robin").table()
    assert table.prefixes is not None
    assert [table.prefixes.of(row) for row in range(4)] == [([0], [40]), ([1], [60]), ([2], [80]), ([0], [40])]
    assert common(table, 0, 3) == 40 and common(table, 0, 1) == 0
    assert (table.input_tokens > np.resize([40, 60, 80], 300)).all()


def test_groups_are_as_popular_as_they_are_said_to_be() -> None:
    table = chats(50_000, shared_prefix_tokens=9, prefix_groups=3, popularity=[6, 3, 1]).table()
    assert table.prefixes is not None
    assert np.bincount(table.prefixes.segment) / 50_000 == pytest.approx([0.6, 0.3, 0.1], abs=0.01)


def test_repeated_prompts_have_their_lengths_and_text_each_time() -> None:
    table = chats(900, shared_prefix_tokens=100, prefix_groups=9, prompts_per_group=5, popularity="round_robin").table()
    prompts = np.stack([table.input_tokens, table.output_tokens], axis=1)
    assert np.array_equal(prompts[:45], prompts[450:495]) and len(set(table.input_tokens[:45].tolist())) > 15
    assert common(table, 7, 52) == table.input_tokens[7] - 1  # all but the token that is computed in any case
    assert common(table, 5, 6) == 100 and common(table, 4, 5) == 0


def test_nothing_is_shared_where_nothing_is_said_to_be() -> None:
    assert chats(50).table().prefixes is None
    assert Traffic.poisson(rate=1, requests=5, input_tokens=1, output_tokens=1).table().prefixes is None


def test_a_closed_loop_holds_conversations() -> None:
    table = Traffic.closed(
        concurrency=3, requests=40, input_tokens=10, output_tokens=5, sessions=Sessions(turns=4, think_s=1.0)
    ).table()
    alone = table.after == NOBODY
    assert (table.arrival_s[alone][:3] == 0).all() and np.isnan(table.arrival_s[alone][3:]).all()
    assert table.input_tokens[:4].tolist() == [10, 25, 40, 55]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"turns": 0}, "turns = 0"), ({"think_s": -1}, "think_s = -1"), ({"think_s": "x"}, "'x' is not a distribution"),
        ({"shared_prefix_tokens": -1}, "shared_prefix_tokens = -1"), ({"prefix_groups": 0}, "prefix_groups = 0"),
        ({"shared_prefix_tokens": [1, 2], "prefix_groups": 3}, "2 shared_prefix_tokens for 3"),
        ({"prompts_per_group": 0}, "prompts_per_group = 0"), ({"prompts_per_group": 2, "turns": 3}, "turns stays at 1"),
        ({"prefix_groups": 2, "popularity": [1, 2, 3]}, "3 rates for 2 prefix_groups"),
        ({"popularity": Drift(every_s=3)}, "does not drift"), ({"popularity": "zapf"}, "zapf"),
    ],
)  # fmt: skip
def test_sessions_that_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Sessions(**given)
    assert "\n" not in str(caught.value)


def test_sessions_are_sessions() -> None:
    with pytest.raises(ConfigError, match=r"sessions = 4 .*Sessions\(turns="):
        Traffic.poisson(rate=1, requests=5, input_tokens=1, output_tokens=1, sessions=4)  # type: ignore[arg-type]
