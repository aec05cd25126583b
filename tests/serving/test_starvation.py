"""Six adapters over three places, as measured: SGLang's pull request 17913 (29 January 2026), ahead of its drainer.

An A100-SXM4-80GB serves Llama-3.1-8B with --max-loras-per-batch 3 --max-loaded-loras 6; bench_serving sends 200 random
prompts of up to 512 tokens with answers of up to 512, at 4 per second. Which adapter a request drew is not known, and a
run of 200 is short: over seeds the mean has a standard deviation of 2 s, the 90th percentile one of 6 s.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

import graphsim as gs
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import rules_of
from graphsim.serving.front import front_of
from graphsim.serving.loop import run
from graphsim.serving.pricing import price_of
from graphsim.serving.run_log import FINISHED, STATUSES, RunLog
from graphsim.traffic.table import RequestTable, request_table

MEASURED_S = {"mean": 12.060, "median": 7.051, "p90": 32.928}
SEEDS = 24


def sent(seed: int) -> RequestTable:
    draw = np.random.default_rng(seed)
    arrival = np.concatenate([[0.0], np.cumsum(draw.exponential(0.25, 199))])
    return request_table(
        arrival, draw.integers(1, 513, 200), draw.integers(1, 513, 200), adapter=draw.integers(0, 6, 200)
    )  # fmt: skip


@pytest.mark.slow
def test_starvation_is_as_bad_as_measured_and_the_drainer_eases_it() -> None:
    lora = gs.LoraConfig(rank=16, max_loras=3)
    deployment = gs.Deployment("llama-3.1-8b", "a100-sxm-80gb", lora=lora, engine="sglang")
    limits = EngineLimits(max_loras_per_batch=3, max_loaded_loras=6)
    rules, price, front = rules_of(deployment, limits), price_of(deployment, limits), front_of(deployment)

    def served(seed: int, drain_after_s: float) -> RunLog:
        its = replace(rules, adapters=replace(rules.adapters, drain_after_s=drain_after_s))
        log = run(sent(seed), its, price, front=front, store=AdapterStore(its.adapters, price.load))
        assert (log.status == STATUSES.index(FINISHED)).all()
        return log

    logs = [served(seed, inf) for seed in range(SEEDS)]
    e2e_s = [log.finished_s - log.sent_s for log in logs]
    found = {"mean": np.mean, "median": np.median, "p90": lambda times: np.percentile(times, 90)}
    for name, figure in found.items():
        assert np.mean([figure(times) for times in e2e_s]) == pytest.approx(MEASURED_S[name], rel=0.25), name
    drained = [served(seed, 3.0) for seed in range(4)]
    waits_s = [[(log.admitted_s - log.sent_s).max() for log in some] for some in (drained, logs[:4])]
    assert np.mean(waits_s[0]) < 0.75 * np.mean(waits_s[1])
