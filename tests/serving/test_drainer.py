"""Whose requests SGLang's drainer holds back."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.serving.drainer import Drainer
from graphsim.traffic.table import BASE


def test_the_adapter_that_will_be_done_first_makes_way_for_the_one_that_waits_longest() -> None:
    drainer = Drainer(places=2, after_s=3.0)
    running = {0: 100, 1: 40}
    drainer.update(3.0, {2: 0.0, 3: 1.0}, running)
    assert not drainer.drained and drainer.next_s(3.0, {2: 0.0, 3: 1.0}) == 4.0  # three seconds are not more than three
    drainer.update(3.5, {2: 0.0, 3: 1.0}, running)
    assert drainer.drained == {1: 2}
    assert drainer.admits(1, 48) and not drainer.admits(1, 49)
    assert drainer.admits(0, 500) and drainer.admits(2, 500)
    drainer.update(4.5, {2: 0.0, 3: 1.0}, {0: 99, 1: 39})
    assert drainer.drained == {1: 2, 0: 3}  # each starving adapter has one drained for it


def test_it_is_over_when_the_last_request_has_left() -> None:
    drainer = Drainer(places=2, after_s=3.0)
    drainer.update(4.0, {2: 0.0}, {0: 100, 1: 40})
    drainer.update(5.0, {2: 0.0}, {0: 60})
    assert not drainer.drained and drainer.admits(1, 1000)


def test_nobody_is_drained_while_a_place_is_free() -> None:
    drainer = Drainer(places=3, after_s=3.0)
    drainer.update(100.0, {2: 0.0}, {0: 100, BASE: 40})
    assert not drainer.drained
    assert drainer.next_s(100.0, {2: 0.0}) == inf


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(-1, 6), st.floats(0, 50), max_size=5),
            st.dictionaries(st.integers(-1, 6), st.integers(1, 500), max_size=3),
        ),
        max_size=20,
    )
)
def test_only_running_adapters_are_drained_and_each_for_one_other(
    looks: list[tuple[dict[int, float], dict[int, int]]],
) -> None:
    drainer = Drainer(places=3, after_s=3.0)
    for now, (since, remaining) in enumerate(looks):
        waiting = {adapter: min(begin, now) for adapter, begin in since.items()}
        drainer.update(float(now), waiting, remaining)
        assert set(drainer.drained) <= set(remaining)
        assert len(set(drainer.drained.values())) == len(drainer.drained)
        assert all(drainer.admits(adapter, left) for adapter, left in remaining.items())
