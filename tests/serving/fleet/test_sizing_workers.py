"""Many workers find the same fleet as one, and repeat little of each other's work."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Executor, Future
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.serving import pricing
from graphsim.serving.fleet import size_job
from graphsim.serving.fleet.size_order import ROUND, groups_of, pieces_of, rounds_of
from graphsim.serving.prices import StepPrices
from graphsim.sweeps.workers import Processes, hands
from graphsim.symbolic.memo import Memo

MEMOS = ((size_job, "_servers"), (size_job, "_bounds"), (pricing, "_tables"))
"""What a process remembers of prices."""
CHOICES = {
    "router": ["least-loaded", "round-robin", "least-kv"], "hardware": ["l4", "l40s", "a10g", "t4"],
    "max_num_seqs": [8, 16], "precision": ["bf16", "fp16"],
}  # fmt: skip
PRICES = {"l4": 1.0, "l40s": 3.0, "a10g": 1.2, "t4": 0.6}


class Apart(Executor):
    """Workers in turn, each with a memory of its own; they work at once, here."""

    def __init__(self, workers: int, patch: pytest.MonkeyPatch) -> None:
        self._max_workers, self._patch, self.calls = workers, patch, 0
        self.memories = [[Memo[Any](most=256) for _ in MEMOS] for _ in range(workers)]

    def submit(self, function: Any, /, *args: Any, **named: Any) -> Future[Any]:
        for (module, name), memo in zip(MEMOS, self.memories[self.calls % self._max_workers], strict=True):
            self._patch.setattr(module, name, memo)
        self.calls += 1
        future = Future[Any]()
        future.set_result(function(*args, **named))
        return future


def sized(executor: Executor) -> pd.DataFrame:
    traffic = gs.Traffic.poisson(rate=60.0, requests=60, input_tokens=200, output_tokens=30)
    return gs.size_fleet(
        "gpt-2", traffic, {"ttft_s": 0.5, "tpot_s": 0.02}, CHOICES, price_per_hour=PRICES, attainment=0.9,
        executor=executor,
    )  # fmt: skip


@pytest.mark.slow
def test_workers_find_the_same_and_repeat_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of step times that are filled, by one worker, by two and by three in turn."""
    filled: Counter[int] = Counter()
    decode_line, node = StepPrices._decode_line, StepPrices._node

    def counted_line(self: StepPrices, *place: Any) -> Any:
        filled[workers] += 1
        return decode_line(self, *place)

    def counted_node(self: StepPrices, place: Any) -> Any:
        filled[workers] += place not in self._nodes
        return node(self, place)

    monkeypatch.setattr(StepPrices, "_decode_line", counted_line)
    monkeypatch.setattr(StepPrices, "_node", counted_node)
    found = []
    for workers in (1, 2, 3):
        executor = Apart(workers, monkeypatch)
        found.append(sized(executor))
        assert executor.calls >= 8
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0])
    assert filled[2] <= 1.15 * filled[1] and filled[3] <= 1.2 * filled[1]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=120), st.integers(1, 40))
@settings(derandomize=True, deadline=None, max_examples=40)
def test_rounds_and_pieces_hold_each_choice_once(groups: list[int], least: int) -> None:
    order = sorted(range(len(groups)), key=lambda i: (i // 30, groups[i], i))
    rounds = rounds_of(order, groups)
    assert [number for each in rounds for number in each] == order
    assert all(ROUND // 2 <= len(each) <= 2 * ROUND for each in rounds[:-1])
    pieces = pieces_of(order, groups.__getitem__, least)
    assert sorted(number for piece in pieces for number in piece) == sorted(order)
    assert all(len({groups[number] for number in piece}) == 1 for piece in pieces)
    assert len(pieces) == max(len(set(groups)), min(least, len(groups)))
    assert [len(piece) for piece in pieces] == sorted(map(len, pieces), reverse=True)


def test_rounds_end_with_a_group_where_one_has_room() -> None:
    """Twenty-five choices with the same prices are in one round, and so go to one process."""
    groups = [number // 25 for number in range(200)]
    assert [len(each) for each in rounds_of(range(200), groups)] == [25] * 8
    assert [len(each) for each in rounds_of(range(70), [0] * 70)] == [2 * ROUND, 2 * ROUND, 70 - 4 * ROUND]


def test_choices_that_share_prices_are_one_group() -> None:
    draft = gs.Speculation(draft="ngram", tokens=3, acceptance=0.9)
    rows = [
        {"router": router, "hardware": hardware, "max_loras": slots, "speculation": speculation}
        for router in ("random", "least-kv") for hardware in ("l4", "t4") for slots in (2, 4)
        for speculation in (None, draft)
    ]  # fmt: skip
    assert groups_of(rows, ("hardware", "tp", "max_loras", "speculation")) == [*range(8), *range(8)]
    assert groups_of([{"tp": 1}, {"tp": True}, {"tp": 1}], ("tp",)) == [0, 1, 0]


def test_workers_say_how_many_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cluster:
        def submit(self, function: Any, /, *args: Any) -> Any: ...

        def ncores(self) -> dict[str, int]:
            return {"one": 2, "another": 3}

    assert hands(None) == 1 and hands(Cluster()) == 5 and hands(Apart(7, monkeypatch)) == 7
    monkeypatch.setattr("graphsim.sweeps.workers.cores", lambda: 4)
    assert hands(Processes(9)) == 4 and hands(Executor()) == 4
