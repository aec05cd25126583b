"""Routers on two replicas, as measured: which one is better, and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.serving.fleet.adapter_routers import StaticMap
from graphsim.serving.fleet.router import LeastLoaded
from graphsim.validation.serving import validate_serving
from graphsim.validation.serving_routing import (
    BEYOND,
    JUDGED,
    most_tokens_per_s,
    ranks_of,
    router_of,
    routing_run,
)
from tests.paths import REFERENCE

TABLE = REFERENCE / "serving" / "lora_routing_two_replicas.csv"
HELD_OUT = ("16", "32", "48")
ROW: dict[str, Any] = {
    "id": "a", "hardware": "2 x 24 GB GPU (24564 MiB each, type not stated)", "model": "Llama-2-7B",
    "precision": "fp16", "replicas": 2, "routing": "least loaded, rank-aware", "max_running_requests_per_replica": 8,
    "max_loras_per_batch": 8, "offered_rate_req_s": 8.0, "completed": 100, "total_input_tokens": 35000,
    "total_generated_tokens": 22000, "duration": 22.0, "adapters": 16, "ranks": "8/16/32/64, four each",
    "request_throughput": 4.5,
}  # fmt: skip


def test_a_row_says_what_ran() -> None:
    run = routing_run(ROW, 1)
    assert run.served is not None and run.served.replicas == 2 and isinstance(run.served.router, LeastLoaded)
    table = run.served.table()
    assert len(table) == 100 and set(table.adapter.tolist()) <= set(range(16))
    assert ranks_of("8/16/32/64, four each", 6) == (8, 16, 32, 64, 8, 16)
    assert isinstance(router_of("static adapter-to-replica map", 16, 2), StaticMap)
    assert run.judged == JUDGED
    assert "not simulated" in routing_run({**ROW, "routing": "least loaded + dLoRA-style migration"}, 1).judged


def test_a_row_that_is_faster_than_the_memory_is_judged_apart() -> None:
    """13.2 GB of weights at 1,008 GB/s are 76 steps a second, of 16 sequences at most."""
    most = most_tokens_per_s(ROW)
    assert most == pytest.approx(2 * 8 * 1008e9 / (2.0 * (6.738e9 - 32000 * 4096)), rel=2e-3)
    assert most_tokens_per_s({**ROW, "max_running_requests_per_replica": 16}) == pytest.approx(2.0 * most)
    judged = [routing_run({**ROW, "duration": 22000 / (most * share)}, 1).judged for share in (0.99, 1.01)]
    assert judged == [JUDGED, BEYOND]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"routing": "by luck"}, "routing = 'by luck' is not understood"),
        ({"hardware": "2 x H100"}, "hardware = '2 x H100' is not understood"),
        ({"ranks": "large"}, "ranks = 'large' is not understood"),
    ],
)
def test_a_row_that_is_not_understood_says_so(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        routing_run({**ROW, **changed}, 1)


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.is_file(), reason="the reference measurements are not here")
def test_the_better_router_is_the_better_one_and_by_as_much() -> None:
    """Six keys in every row; ratios of throughput at the rates that nothing was chosen on."""
    lines = validate_serving([str(TABLE)])
    assert (lines["problem"] == "").all() and np.isfinite(lines["predicted"]).all()
    by_rate = {rate: lines[lines["id"].str.contains(f"-{rate}-sglang")] for rate in ("8", "24", "40", *HELD_OUT)}
    errors, apart = {}, set(lines[lines["judged"] == BEYOND]["id"].str.extract(r"-(\d+)-sglang")[0])
    for rate, part in by_rate.items():
        rows = part[part["metric"] == "request_throughput"].set_index("routing")
        static = rows.filter(like="static", axis=0).iloc[0]
        for name, row in rows[~rows.index.str.startswith("static")].iterrows():
            measured, predicted = (row[what] / static[what] for what in ("measured", "predicted"))
            assert (measured > 1.0) == (predicted > 1.0), (rate, name)
            errors[rate, str(name)] = abs(predicted / measured - 1.0)
    held_out = [error for (rate, _), error in errors.items() if rate in HELD_OUT]
    assert max(held_out) <= 0.15 and np.median(list(errors.values())) <= 0.15
    assert apart == {"32", "40", "48"}
    assert max(error for (rate, _), error in errors.items() if rate not in apart) <= 0.15
