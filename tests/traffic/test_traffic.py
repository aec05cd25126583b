"""Traffic as a value: what it draws, says of itself, and becomes when it is scaled; traces as traffic."""

from __future__ import annotations

import pickle
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.traffic.classes import RequestClass
from graphsim.traffic.client import Client
from graphsim.traffic.parts import Recorded
from graphsim.traffic.popularity import Adapters, Drift
from graphsim.traffic.rates import Bursts, Ramp
from graphsim.traffic.sessions import Sessions
from graphsim.traffic.table import RequestTable, request_table
from graphsim.traffic.trace import first_of_each, first_rows
from graphsim.traffic.traffic import Traffic

LENGTHS: dict[str, Any] = {"input_tokens": "lognormal:mean=222,median=152", "output_tokens": "gamma:mean=194,cv=0.8"}
ADAPTED: dict[str, Any] = {"adapters": 100, "popularity": "zipf:1.2", "ranks": {8: 0.5, 64: 0.5}}
CHATS = Sessions(turns=(1, 9), think_s="exponential:mean=20", shared_prefix_tokens=[50, 90], prefix_groups=2)
CLASSES = [RequestClass("chat", 3, ttft_s=0.5), RequestClass("batch", 1, 5, output_tokens=(400, 600))]


def everything(seed: int = 0) -> Traffic:
    return Traffic.poisson(
        rate=8.0, requests=3000, burstiness=0.5, seed=seed, **LENGTHS, **ADAPTED, sessions=CHATS, classes=CLASSES
    )


def digest(table: RequestTable) -> str:
    """Of all columns, times to the microsecond."""
    prefixes = table.prefixes
    whole = [table.input_tokens, table.output_tokens, table.adapter, table.priority, table.group, table.after]
    parts = [] if prefixes is None else [prefixes.start, prefixes.segment, prefixes.end]
    times = [np.rint(np.nan_to_num(column, nan=-1.0) * 1e6) for column in (table.arrival_s, table.think_s)]
    return sha256(b"".join(each.astype("<i8").tobytes() for each in (*whole, *parts, *times))).hexdigest()[:16]


KNOWN = {
    "everything": (everything, "b8d369e9443223e4"),
    "another seed": (lambda: everything(7), "78f8cb1aa572065e"),
    "poisson": (lambda: Traffic.poisson(rate=5, requests=2000, **LENGTHS, **ADAPTED), "81161f25a8feb9fd"),
    "stages": (
        lambda: Traffic.poisson(
            rate=[(5, 60), (Ramp(5, 20), 60), (0, 10)], **LENGTHS, burstiness=3, client=Client(rescales=False)
        ),
        "df0b7456c9f84ee1",
    ),
    "drift": (
        lambda: Traffic.poisson(
            rate=Bursts(rate=1, burst_rate=40, every_s=30, burst_s=3),
            seconds=600,
            input_tokens=[(5, 7), (70, 50)],
            adapters=20,
            popularity=Drift(popularity="power:0.3", to="uniform", over_s=300.0),
        ),
        "7ead4d234c063b68",
    ),
    "processes": (
        lambda: Traffic.poisson(popularity=[2, 1, 0.5], seconds=300, burstiness=0.2, **LENGTHS),
        "d02e4e1bb7331a1f",
    ),
    "closed": (
        lambda: Traffic.closed(concurrency=8, requests=500, **LENGTHS, **ADAPTED, sessions=CHATS),
        "90d8510b0d433dfc",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_seed_gives_the_same_requests_everywhere(name: str) -> None:
    make, known = KNOWN[name]
    assert digest(make().table()) == known


def test_a_traffic_is_a_value() -> None:
    assert everything() == everything() and hash(everything()) == hash(everything()) and everything() != everything(1)
    traffic = everything()
    assert traffic.table() is traffic.table()
    copy = pickle.loads(pickle.dumps(traffic))
    assert copy == traffic and digest(copy.table()) == digest(traffic.table())
    assert len(pickle.dumps(traffic)) < 20_000
    with pytest.raises(AttributeError):
        traffic.seed = 4  # type: ignore[misc]


def test_scaling_moves_arrivals_and_nothing_else() -> None:
    slow, fast = everything(), everything().scaled(2.0).scaled(2.0)
    assert np.allclose(fast.table().arrival_s * 4.0, slow.table().arrival_s, equal_nan=True)
    for column in ("input_tokens", "output_tokens", "adapter", "think_s", "after"):
        assert np.array_equal(getattr(fast.table(), column), getattr(slow.table(), column))
    assert fast.request_rate == pytest.approx(32.0) and fast.duration_s == pytest.approx((slow.duration_s or 0) / 4)
    closed = Traffic.closed(concurrency=8, requests=50, **LENGTHS)
    assert [closed.scaled(factor).concurrency for factor in (0.01, 0.5, 1.3)] == [1, 4, 10]
    for factor in (0, -1, inf):
        with pytest.raises(ConfigError, match="factor"):
            closed.scaled(factor)


def test_what_is_offered() -> None:
    traffic = Traffic.poisson(rate=5, requests=1000, input_tokens=512, output_tokens=128)
    assert traffic.duration_s == pytest.approx(200.0) and traffic.concurrency is None
    offered = (traffic.request_rate, traffic.input_tokens_per_s, traffic.output_tokens_per_s)
    assert offered == pytest.approx((5.0, 2560.0, 640.0))
    at_once = Traffic.poisson(rate=inf, requests=10, input_tokens=1, output_tokens=1)
    assert (at_once.duration_s, at_once.request_rate) == (0.0, inf)
    closed = Traffic.closed(concurrency=4, requests=10, input_tokens=1, output_tokens=1)
    assert (closed.duration_s, closed.request_rate, closed.concurrency) == (None, None, 4)
    assert closed.table().arrival_s[:4].tolist() == [0.0] * 4 and np.isnan(closed.table().arrival_s[4:]).all()


def test_a_traffic_in_words() -> None:
    assert repr(everything()) == (
        "Traffic(3,000 requests, 8/s, gamma gaps of shape 0.5; "
        "lognormal:mean=222,median=152 in, gamma:cv=0.8,mean=194 out; "
        "100 adapters (zipf:1.2, ranks 8/64); conversations of 5 turns, 2 shared prefixes of 70 tokens; "
        "classes chat, batch; seed 0)"
    )
    lines = everything().scaled(2).describe().splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "arrivals",
        "offered",
        "prompts",
        "answers",
        "sessions",
        "adapters",
        "class chat",
        "class batch",
    ]
    assert "2 times as fast" in lines[0] and "16 requests/s" in lines[1]
    for name, (make, _) in KNOWN.items():
        assert "\n" not in repr(make()), name
        assert len(make().describe()) < 1500
    bursts = Traffic.poisson(rate=Bursts(rate=1, burst_rate=4, every_s=9, burst_s=3), requests=5, **LENGTHS)
    assert "1/s with bursts of 4/s for 3 of 9 s" in repr(bursts)
    assert "5/s to 9/s (linear)" in repr(Traffic.poisson(rate=Ramp(5, 9), requests=5, **LENGTHS))
    assert "all at once" in repr(Traffic.poisson(rate=inf, requests=5, **LENGTHS))


@pytest.mark.slow
def test_a_million_requests_in_bounded_memory() -> None:
    import tracemalloc

    tracemalloc.start()
    traffic = Traffic.poisson(
        rate=50.0, requests=1_000_000, burstiness=0.5, **LENGTHS, adapters=1000, popularity="zipf:1.2",
        sessions=Sessions(turns=(1, 9), shared_prefix_tokens=50),
    )  # fmt: skip
    assert len(traffic.table()) == 1_000_000
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 400 * 2**20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": -1}, "seed = -1"),
        ({"seed": 1.5}, "seed = 1.5"),
        ({"client": 5}, r"client = 5 .*Client\(connections"),
        ({"requests": 10**9}, "requests = 1000000000"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Traffic.poisson(**{"rate": 1.0, "requests": 5, "input_tokens": 1, "output_tokens": 1} | given)


def test_chance_may_send_nobody() -> None:
    with pytest.raises(ConfigError, match="no request arrived"):
        Traffic.poisson(
            rate=0.6, seconds=1.0, input_tokens=1, output_tokens=1, client=Client(rescales=False), seed=1
        ).table()


@pytest.mark.parametrize(("concurrency", "requests"), [(0, 5), (-2, 5), (2.5, 5), (2, 0)])
def test_closed_loops_that_cannot_be(concurrency: Any, requests: int) -> None:
    with pytest.raises(ConfigError, match=r"(concurrency|requests) = "):
        Traffic.closed(concurrency=concurrency, requests=requests, input_tokens=1, output_tokens=1)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    rows = [f"{second},{100 + second},{10 + second},{'abc'[second % 3]}" for second in range(20)]
    path.write_text("arrival_s,input_tokens,output_tokens,lora\n" + "\n".join(rows) + "\n")
    return path


def test_a_trace_is_traffic(trace: Path) -> None:
    traffic = Traffic.from_file(trace, ranks="8/16/32")
    table = traffic.table()
    assert traffic.adapters == ("a", "b", "c") and traffic.ranks == (8, 16, 32) and traffic.concurrency is None
    assert table.arrival_s.tolist() == list(range(20)) and table.input_tokens.tolist() == list(range(100, 120))
    assert table.adapter.tolist() == [number % 3 for number in range(20)]
    assert "trace.csv" in repr(traffic) and "20 requests" in traffic.describe()


def test_a_trace_is_stretched_cut_and_scaled(trace: Path) -> None:
    assert Traffic.from_file(trace, rate=4.0).request_rate == pytest.approx(4.0)
    assert Traffic.from_file(trace).scaled(2).table().arrival_s[-1] == 9.5
    assert len(Traffic.from_file(trace, requests=5).table()) == 5
    part = Traffic.from_file(trace, start_s=5, seconds=10).table()
    assert part.input_tokens.tolist() == list(range(105, 115))


def test_adapters_and_classes_are_laid_over_a_trace(trace: Path) -> None:
    traffic = Traffic.from_file(trace, adapters=7, popularity="round_robin", classes=CLASSES)
    assert traffic.table().adapter.tolist() == [number % 7 for number in range(20)]
    assert set(traffic.table().group.tolist()) == {0, 1} and len(traffic.classes) == 2
    drifting = Traffic.from_file(trace, adapters=5, popularity=Drift(popularity="one", every_s=4.0))
    assert drifting.table().adapter.tolist() == [number // 4 for number in range(20)]
    assert len(traffic.with_adapters(9).adapters) == 9
    with pytest.raises(ConfigError, match="says which adapters are wanted"):
        Traffic.from_file(trace).with_adapters(2)


def test_a_trace_in_a_closed_loop(trace: Path) -> None:
    traffic = Traffic.from_file(trace, concurrency=4)
    assert traffic.concurrency == 4 and traffic.duration_s is None and traffic.scaled(2).concurrency == 8
    assert traffic.table().arrival_s[:4].tolist() == [0.0] * 4 and np.isnan(traffic.table().arrival_s[4:]).all()


def test_prefixes_of_a_trace_are_cut_with_it(tmp_path: Path) -> None:
    import json

    path = tmp_path / "mooncake.jsonl"
    rows = [
        {"timestamp": 1000 * number, "input_length": 1100, "output_length": 9, "hash_ids": [1, 2, number + 3]}
        for number in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = Traffic.from_file(path).table()
    prefixes = first_rows(whole, 4).prefixes
    assert whole.prefixes is not None and len(whole.prefixes.start) == 10
    assert prefixes is not None and len(prefixes.start) == 5 and prefixes.start[-1] == len(prefixes.segment)


def test_turns_of_a_trace_want_the_adapter_and_the_class_of_the_first() -> None:
    after = np.array([-1, -1, 0, 2, 1, 4, -1, 3])
    rows = request_table(np.where(after < 0, np.arange(8.0), np.nan), np.full(8, 9), np.full(8, 9), after=after)
    pool = Adapters(names=("a", "b", "c"), popularity="round_robin")
    table = Traffic(source=Recorded(path="x", rows=rows), pool=pool, classes=tuple(CLASSES), seed=3).table()
    first = np.array([0, 1, 0, 0, 1, 1, 6, 0])
    assert first_of_each(after).tolist() == first.tolist()
    assert (table.adapter == table.adapter[first]).all() and (table.group == table.group[first]).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": 0}, "rate = 0"),
        ({"concurrency": 0}, "concurrency = 0"),
        ({"popularity": "zipf:1"}, "says which adapters"),
        ({"base_share": 0.5}, "says which adapters"),
        ({"adapters": 2, "popularity": [1]}, "1 rates for 2"),
        ({"adapters": 0, "ranks": 8}, "there are none"),
        ({"requests": 0}, "requests = 0"),
        ({"ranks": [8]}, "1 ranks for 3"),
    ],
)
def test_traces_that_cannot_be_used_so(trace: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Traffic.from_file(trace, **given)


def test_a_trace_that_comes_at_once_has_no_rate(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,1,1\n0,2,2\n")
    with pytest.raises(ConfigError, match="all requests come at once"):
        Traffic.from_file(path, rate=5).table()
