"""Pools of hand-made workers, and a second queue written one step at a time."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from graphsim.deployment.cache import CachedLayers, RequestCache
from graphsim.serving.disaggregated.hand_off import HAND_OFFS, HandOff
from graphsim.serving.disaggregated.layout import CacheLayout
from graphsim.serving.disaggregated.run import Pool, run_pools
from graphsim.serving.disaggregated.run_logs import PoolLogs
from graphsim.serving.disaggregated.transfer import TransferPlan
from graphsim.serving.rules import Rules
from graphsim.traffic.table import RequestTable, request_table
from tests.serving.line_price import LinePrice

PRICE = LinePrice()
ADMISSIONS = {"vllm": "blocks", "sglang": "estimated", "trtllm": "no_evict"}
ORDERS = {"vllm": "mixed", "sglang": "prefill_first", "trtllm": "mixed"}
TOKEN_BYTES = 1e5


def layout(ranks: int = 1, token_bytes: float = TOKEN_BYTES, buffers: int = 64, stages: int = 1) -> CacheLayout:
    cache = RequestCache(layers=(CachedLayers(token_bytes=token_bytes, window=1e12),), state_bytes=0.0)
    return CacheLayout(stages=(cache,) * stages, ranks=ranks, buffers=buffers)


def way(hand_off: HandOff, rate: float = inf, *, setup_s: float = 0.0, chunk: float = inf) -> TransferPlan:
    return TransferPlan(
        link="a wire", bytes_per_s=rate, setup_s=setup_s, descriptor_s=0.0, hand_off=hand_off, sender=layout(),
        receiver=layout(), chunk_tokens=chunk,
    )  # fmt: skip


def requests(count: int = 60, seconds: float = 10.0, seed: int = 0, outputs: int = 60) -> RequestTable:
    draw = np.random.default_rng(seed)
    arrivals = np.sort(draw.uniform(0.0, seconds, count))
    return request_table(arrivals, draw.integers(20, 1500, count), draw.integers(1, outputs, count))


def rules_of(engine: str, **changed: Any) -> Rules:
    given = {"kv_blocks": 40_000, "order": ORDERS[engine], "admission": ADMISSIONS[engine], "max_num_seqs": 64}
    return Rules(**{**given, "max_num_batched_tokens": 2048, **changed})


def served(
    engine: str, table: RequestTable, rate: float = inf, *, prefill: int = 1, decode: int = 1,
    prefill_rules: dict[str, Any] | None = None, decode_rules: dict[str, Any] | None = None, **given: Any,
) -> PoolLogs:  # fmt: skip
    ahead, behind = rules_of(engine, **(prefill_rules or {})), rules_of(engine, **(decode_rules or {}))
    return run_pools(
        table, Pool(rules=ahead, price=PRICE, workers=prefill), Pool(rules=behind, price=PRICE, workers=decode),
        way(HAND_OFFS[engine], rate, chunk=ahead.max_num_batched_tokens), **given,
    )  # fmt: skip


def second_queue(table: RequestTable, first_token_s: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """When each answer is complete, of requests that come with their first token and one step at a time generate."""
    order = sorted(range(len(table)), key=lambda row: (first_token_s[row], row))
    finished = np.full(len(table), np.nan)
    running: dict[int, int] = {}
    now = 0.0
    while order or running:
        if not running:
            now = max(now, float(first_token_s[order[0]]))
        while order and first_token_s[order[0]] <= now:
            row = order.pop(0)
            if table.output_tokens[row] == 1:
                finished[row] = now
            else:
                running[row] = 1
        if not running:
            continue
        context = sum(int(table.input_tokens[row]) + made - 1 for row, made in running.items())
        now += PRICE.decode(len(running), context, 0)[0]
        running = {row: made + 1 for row, made in running.items()}
        for row in [row for row, made in running.items() if made == table.output_tokens[row]]:
            finished[row] = now
            del running[row]
    return finished
