"""Pools, traffic and clients drawn at random: all that comes is answered or accounted for, and nothing stays behind."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import numpy as np
import pytest

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.disaggregated.hand_off import HAND_OFFS
from graphsim.serving.disaggregated.placing import PLACINGS
from graphsim.serving.disaggregated.run import Pool, _Serving
from graphsim.serving.front import Front
from graphsim.serving.rules import AdapterRules, Rules
from graphsim.serving.run_log import FINISHED, STATUSES, UNFINISHED
from graphsim.traffic.client import Client
from graphsim.traffic.table import Prefixes, RequestTable, request_table
from tests.serving.disaggregated.pools import PRICE, way
from tests.serving.served_cases import PRESETS

SMALL = 2500
"""Tokens of the longest prompt, which the smallest cache just holds."""


def drawn_table(draw: random.Random, seed: int, adapters: int, *, closed: bool) -> RequestTable:
    count, numbers = draw.randint(5, 40), np.random.default_rng(seed)
    arrivals = np.sort(numbers.uniform(0.0, draw.choice([0.1, 3.0, 20.0]), count))
    columns: dict[str, Any] = {"adapter": numbers.integers(-1, adapters, count)} if adapters else {}
    inputs = numbers.integers(1, draw.choice([30, 900, SMALL]), count)
    if draw.random() < 0.4:
        ends = np.minimum(numbers.integers(1, 800, count), inputs)
        columns["prefixes"] = Prefixes(start=np.arange(count + 1), segment=numbers.integers(0, 5, count), end=ends)
    outputs = numbers.integers(1, draw.choice([2, 40, 200]), count)
    return request_table(np.full(count, np.nan) if closed else arrivals, inputs, outputs, **columns)


def drawn_pool(draw: random.Random, adapters: int) -> Pool:
    preset = dict(PRESETS[draw.choice(list(PRESETS))])
    slots = AdapterRules()
    if adapters:
        slots = AdapterRules(
            max_loras=draw.choice([1, 2, 4]), max_cpu_loras=draw.choice([4, 20]), skips=draw.random() < 0.5,
            loads=draw.choice(["stall", "overlapped"]), base_takes_place=draw.random() < 0.2,
        )  # fmt: skip
    tokens = draw.choice([64, 512, 4096]) if preset.get("chunked", True) else 4096
    rules = Rules(
        kv_blocks=draw.choice([180, 260, 600, 40_000]), max_num_batched_tokens=tokens,
        max_num_seqs=draw.choice([1, 3, 16, 64]), receive_steps=draw.choice([1, 1, 10]), adapters=slots, **preset,
    )  # fmt: skip

    def store() -> AdapterStore | None:
        return AdapterStore(rules.adapters, PRICE.load, (1,) * adapters) if adapters else None

    return Pool(rules=rules, price=PRICE, workers=draw.choice([1, 1, 2, 3]), store=store)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(120))
def test_nothing_is_lost_and_nothing_stays_behind(seed: int) -> None:
    draw = random.Random(seed)
    adapters, closed = draw.choice([0, 0, 3, 12]), draw.random() < 0.3
    table = drawn_table(draw, seed, adapters, closed=closed)
    prefill, decode = drawn_pool(draw, adapters), drawn_pool(draw, adapters)
    client = Client(timeout_s=draw.choice([inf, inf, 2.0, 10.0]), connections=draw.choice([inf, inf, 8]))
    hand_off = HAND_OFFS[draw.choice(list(HAND_OFFS))]
    link = way(hand_off, draw.choice([inf, 1e9, 1e8]), chunk=prefill.rules.max_num_batched_tokens)
    front = Front(request_s=draw.choice([0.0, 0.005]), reply_s=draw.choice([0.0, 0.001]))
    clients = draw.choice([1, 4, 20]) if closed else None
    serving = _Serving(table, prefill, decode, link, client, clients, front, draw.choice(PLACINGS))
    serving.run(inf, None)
    for worker in serving.decode:
        batch = worker.scheduler.batch
        assert batch.cache.available == batch.cache.size and batch.promised == 0
        assert worker.requests == len(worker.door) == batch.queue.size == 0
    for ahead in serving.prefill:
        cache = ahead.driven.engine.batch.cache
        assert cache.available == cache.size and ahead.tokens == 0
    answers = serving.logs.decode[0]
    done = answers.status == STATUSES.index(FINISHED)
    assert (answers.first_token_s[done] <= answers.finished_s[done]).all()
    ended = done | (serving.logs.whole.status != STATUSES.index(UNFINISHED))
    for log in (answers, serving.logs.prefill[0]):
        ended |= ~np.isin(log.status, [STATUSES.index(UNFINISHED), STATUSES.index(FINISHED)])
    assert ended.all()
