"""Classes of requests, their priorities, lengths and limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.traffic.classes import RequestClass
from graphsim.traffic.sessions import Sessions
from graphsim.traffic.traffic import Traffic

CHAT = RequestClass("chat", share=3, priority=0, ttft_s=0.5, tpot_s=0.05, input_tokens=(50, 99))
BATCH = RequestClass("batch", share=1, priority=5, e2e_s=60.0, output_tokens=1000)


def traffic(**further: Any) -> Traffic:
    return Traffic.poisson(**{"rate": 5.0, "requests": 20_000, "input_tokens": 500, "output_tokens": 20} | further)


def test_classes_have_their_shares_lengths_and_priorities() -> None:
    found = traffic(classes=[CHAT, BATCH])
    table = found.table()
    chat = table.group == 0
    assert chat.mean() == pytest.approx(0.75, abs=0.01)
    assert set(table.priority[chat].tolist()) == {0} and set(table.priority[~chat].tolist()) == {5}
    assert (table.input_tokens[chat].min(), table.input_tokens[chat].max()) == (50, 99)
    assert set(table.output_tokens[chat].tolist()) == {20} and set(table.output_tokens[~chat].tolist()) == {1000}
    assert set(table.input_tokens[~chat].tolist()) == {500}
    assert [each.limits for each in found.classes] == [{"ttft_s": 0.5, "tpot_s": 0.05}, {"e2e_s": 60.0}]
    assert np.array_equal(table.arrival_s, traffic().table().arrival_s)


def test_a_conversation_is_of_one_class() -> None:
    table = traffic(requests=500, classes=[CHAT, BATCH], sessions=Sessions(turns=5)).table()
    assert (table.group.reshape(100, 5) == table.group[::5, None]).all() and set(table.group.tolist()) == {0, 1}


def test_priorities_alone_make_classes() -> None:
    found = traffic(priorities={0: 0.2, 10: 0.8})
    assert np.mean(found.table().priority == 10) == pytest.approx(0.8, abs=0.01)
    assert [each.name for each in found.classes] == ["priority 0", "priority 10"]


def test_pairs_of_a_class_stand_for_both_lengths() -> None:
    table = traffic(classes=[RequestClass("pairs", input_tokens=[(7, 70)]), BATCH]).table()
    assert set(zip(table.input_tokens.tolist(), table.output_tokens.tolist(), strict=True)) == {(7, 70), (500, 1000)}
    with pytest.raises(ConfigError, match="'batch'.*input_tokens is needed"):
        traffic(input_tokens=[(1, 2)], output_tokens=None, classes=[BATCH]).table()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RequestClass("a", ttft_s=0), "'a': ttft_s = 0"),
        (lambda: RequestClass("a", tpot_s=-1), "tpot_s = -1"),
        (lambda: RequestClass("a", e2e_s=float("nan")), "e2e_s = nan"),
        (lambda: RequestClass("a", share=-1), "share = -1"),
        (lambda: RequestClass(""), "name = ''"),
        (lambda: RequestClass("a", priority=0.5), "priority = 0.5"),
        (lambda: RequestClass("a", input_tokens=0), "'a': input_tokens = 0"),
        (lambda: traffic(classes=[CHAT, CHAT]), "'chat' is used twice"),
        (lambda: traffic(classes=3), "classes = 3"),
        (lambda: traffic(classes=[RequestClass("a", share=0)]), "no class has a share"),
        (lambda: traffic(classes=[CHAT], priorities={0: 1}), "not both"),
        (lambda: traffic(priorities=[1]), r"priorities = \[1\]"),
    ],
)
def test_classes_that_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)
