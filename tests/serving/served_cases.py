"""Traffic, rules and clients drawn for the laws of the event loop; and runs of both loops on one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.front import Front
from graphsim.serving.loop import run
from graphsim.serving.rules import EVICTIONS, POLICIES, AdapterRules, Rules
from graphsim.serving.run_log import RunLog
from graphsim.traffic.client import Client
from graphsim.traffic.table import BASE, NOBODY, Prefixes, RequestTable, request_table
from tests.serving.line_price import LinePrice
from tests.serving.step_by_step import Reference

PRICE = LinePrice()
PRESETS: dict[str, dict[str, Any]] = {
    "vllm": {"order": "mixed", "admission": "blocks", "shortage": "last"},
    "vllm-2026": {"order": "mixed", "admission": "whole_prompt", "shortage": "last", "async_scheduling": True},
    "sglang": {"order": "prefill_first", "admission": "estimated", "shortage": "retract", "async_scheduling": True},
    "slora": {"order": "prefill_first", "admission": "peak", "shortage": "last", "chunked": False},
    "peak-mixed": {"order": "mixed", "admission": "peak", "shortage": "last"},
    "trtllm-no-evict": {"order": "mixed", "admission": "no_evict", "shortage": "pause"},
    "trtllm-max-utilization": {"order": "mixed", "admission": "blocks", "shortage": "pause"},
}


@dataclass(frozen=True)
class Case:
    table: RequestTable
    rules: Rules
    client: Client
    concurrency: int | None
    front: Front

    def store(self) -> AdapterStore | None:
        return AdapterStore(self.rules.adapters, PRICE.load) if self.rules.adapters.max_loras else None

    def run(self) -> RunLog:
        return run(
            self.table, self.rules, PRICE, client=self.client, concurrency=self.concurrency, front=self.front,
            store=self.store(),
        )  # fmt: skip

    def reference(self) -> Reference:
        return Reference(
            self.table, self.rules, PRICE, client=self.client, concurrency=self.concurrency, front=self.front,
            store=self.store(),
        )  # fmt: skip


@st.composite
def tables(draw: st.DrawFn, most: int = 24, adapters: int = 0, closed: bool = False) -> RequestTable:
    """Requests at random times; some follow others, some begin alike, some have no time of their own."""
    count = draw(st.integers(2, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    longest_input, longest_output = draw(st.sampled_from([(40, 20), (150, 60), (20, 150)]))
    arrival = np.cumsum(rng.exponential(1.0 / draw(st.sampled_from([1.0, 10.0, 100.0])), count))
    after = np.full(count, NOBODY)
    if draw(st.booleans()):
        follows = rng.random(count) < 0.4
        after[follows] = (rng.random(count) * np.arange(count)).astype(int)[follows]
        after[0] = NOBODY
    arrival[(after != NOBODY) | (closed & (rng.random(count) < 0.9))] = np.nan
    inputs = rng.integers(1, longest_input + 1, count)
    return request_table(
        arrival, inputs, rng.integers(1, longest_output + 1, count), after=after, think_s=rng.random(count) * 0.5,
        adapter=rng.integers(BASE, adapters, count) if adapters else np.full(count, BASE),
        priority=rng.integers(0, 3, count), prefixes=_prefixes(rng, inputs) if draw(st.booleans()) else None,
    )  # fmt: skip


def _prefixes(rng: np.random.Generator, inputs: Any) -> Prefixes:
    """Chains of up to three segments, two texts at each depth; some go to the end of their prompt."""
    start, segment, end = [0], [], []
    for length in inputs.tolist():
        at = 0
        for depth in range(rng.integers(0, 4)):
            at = min(at + int(rng.choice([16, 8, 5, rng.integers(1, 40)])), length)
            segment.append(100 * depth + int(rng.integers(2)))
            end.append(at)
            if at == length:
                break
        start.append(len(segment))
    return Prefixes(start=np.array(start), segment=np.array(segment, dtype=int), end=np.array(end, dtype=int))


@st.composite
def cases(draw: st.DrawFn, preset: str, *, plain_client: bool = False) -> Case:
    """Few blocks, places, tokens and slots, so that requests get into each other's way."""
    adapters = draw(st.sampled_from([0, 3, 8]))
    concurrency = draw(st.sampled_from([None, None, 1, 3, 8]))
    table = draw(tables(adapters=adapters, closed=concurrency is not None))
    size = draw(st.sampled_from([1, 4, 16]))
    largest = max(ceil((i + o - 1) / size) for i, o in zip(table.input_tokens, table.output_tokens, strict=True))
    places = draw(st.sampled_from([2, 4, 16]))
    rules = Rules(
        kv_blocks=draw(st.sampled_from([largest, largest + 3, 2 * largest, 10 * largest])), block_tokens=size,
        max_num_batched_tokens=max(places, draw(st.sampled_from([16, 64, 1000]))), max_num_seqs=places,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 7, 20])), chunked=draw(st.booleans()),
        watermark=draw(st.sampled_from([0.0, 0.05])), policy=draw(st.sampled_from(POLICIES)),
        prefix_cache=draw(st.booleans()), ratio_decay=draw(st.sampled_from([0.001, 0.05])),
        prefill_interval=draw(st.sampled_from([1, 1, 3])), receive_steps=draw(st.sampled_from([1, 1, 4])),
        wait_steps=draw(st.sampled_from([0, 5])), wait_share=draw(st.sampled_from([0.2, 1.0])),
        max_model_len=draw(st.sampled_from([inf, inf, 60])),
        adapters=AdapterRules(
            max_loras=draw(st.integers(1, 4)) if adapters else 0, max_cpu_loras=4, skips=draw(st.booleans()),
            skip_s=draw(st.sampled_from([0.0, 1e-3])),
            base_takes_place=bool(adapters) and draw(st.booleans()), eviction=draw(st.sampled_from(EVICTIONS)),
        ),
    )  # fmt: skip
    rules = replace(rules, **PRESETS[preset])
    client = Client() if plain_client else draw(clients())
    return Case(table, rules, client, concurrency, Front(request_s=0.002, token_s=1e-5, reply_s=0.001))


@st.composite
def clients(draw: st.DrawFn) -> Client:
    return Client(
        connections=draw(st.sampled_from([inf, inf, 2, 5])), refuses=draw(st.booleans()),
        timeout_s=draw(st.sampled_from([inf, inf, 0.5, 3.0])), cutoff_s=draw(st.sampled_from([inf, inf, 2.5])),
        send_s=draw(st.sampled_from([0.0, 0.003])), reply_s=draw(st.sampled_from([0.0, 0.004])),
    )  # fmt: skip
