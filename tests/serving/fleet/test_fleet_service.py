"""What `gs.serve` says of several replicas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.serving.fleet.fleet_service import FleetService

LORA = gs.LoraConfig(rank=8, max_loras=2)


def traffic(rate: float = 20.0, adapters: int = 6, **more: Any) -> gs.Traffic:
    return gs.Traffic.poisson(
        rate=rate, requests=200, input_tokens=(20, 300), output_tokens=(5, 60), adapters=adapters, **more
    )


def served(replicas: int = 3, router: Any = "least-loaded", **more: Any) -> FleetService:
    found = gs.serve("gpt-2", "l4", traffic(), lora=LORA, replicas=replicas, router=router, **more)
    assert isinstance(found, FleetService)
    return found


@pytest.mark.slow
def test_one_replica_is_no_fleet_and_the_router_does_not_matter() -> None:
    found = [gs.serve("gpt-2", "l4", traffic(), lora=LORA, router=router) for router in ("llm-d", "random")]
    assert not any(isinstance(one, FleetService) for one in found)
    assert found[0].summary() == found[1].summary()


def test_the_parts_add_up_to_the_whole() -> None:
    fleet = served()
    frame, replicas = fleet.requests, fleet.replicas
    assert frame["replica"].value_counts().sort_index().tolist() == replicas["requests"].tolist()
    assert replicas["completed"].sum() == fleet.summary()["completed"] == 200
    assert replicas["output_tokens"].sum() == fleet.summary()["total_output_tokens"]
    assert replicas["loads"].sum() == len(fleet.log.loads) == fleet.adapters["loads"].sum() == fleet.balance.loads
    assert fleet.adapters["reloads"].sum() == fleet.balance.reloads
    assert len(fleet.steps) == sum(len(fleet.of_replica(n).steps) for n in range(3))
    gaps = sum(count for _, count in fleet.log.gaps)
    assert gaps == sum(count for n in range(3) for _, count in fleet.of_replica(n).log.gaps)
    assert fleet.replica_s == pytest.approx(3 * fleet.duration_s)


def test_one_of_the_replicas_is_a_service_of_its_own() -> None:
    fleet = served()
    alone, own = fleet.of_replica(1), fleet.requests[fleet.requests["replica"] == 1]
    assert alone.requests["ttft_s"].tolist() == own["ttft_s"].tolist()
    assert 0.0 < alone.utilisation.busy <= 1.0 and len(alone.steps) > 0
    with pytest.raises(gs.ConfigError, match="replica 3 does not exist; there are 3"):
        fleet.of_replica(3)
    with pytest.raises(gs.ConfigError, match="has no timeline of one engine"):
        _ = fleet.over_time


def test_balance_tells_even_routers_from_uneven_ones() -> None:
    even, uneven = served(router="round-robin").balance, served(router="rendezvous").balance
    assert even.requests < 1.02 < uneven.requests
    assert uneven.copies == 1.0 < even.copies
    assert uneven.reloads <= even.reloads and uneven.thrash <= even.thrash
    assert any("uneven load" in text for text in served(2, OneOnly()).warnings)


class OneOnly:
    """All to the first replica."""

    def route(self, request: Any, views: Any) -> int:
        return views[0].number  # type: ignore[no-any-return]


def test_files_of_a_fleet_come_whole(tmp_path: Path) -> None:
    fleet = served()
    bench = json.loads(fleet.to_json(tmp_path / "bench.json").read_text())
    assert bench["completed"] == 200 and len(bench["itls"]) == 200
    for gaps, e2e, ttft in zip(bench["itls"], fleet.requests["e2e_s"], bench["ttfts"], strict=True):
        assert sum(gaps) == pytest.approx(e2e - ttft, abs=1e-6)
    lines = fleet.to_jsonl(tmp_path / "records.jsonl").read_text().splitlines()
    assert len(lines) == 200
    found = json.loads(json.dumps(fleet.to_dict()))
    assert found["router"] == "least-loaded" and len(found["replicas"]) == 3 and found["balance"]["replicas"] == 3


@pytest.mark.slow
def test_routers_side_by_side() -> None:
    table = gs.compare_serving(
        "gpt-2", "l4", traffic(), vary={"router": ["round-robin", "adapter-affinity"]}, lora=LORA, replicas=3
    )
    assert table.loc["adapter-affinity", "reloads"] < table.loc["round-robin", "reloads"]
    more = gs.compare_serving("gpt-2", "l4", traffic(), vary={"replicas": [1, 4]}, lora=LORA)
    assert more.loc[4, "mean_e2e_s"] < more.loc[1, "mean_e2e_s"]


@pytest.mark.slow
def test_capacity_grows_with_replicas() -> None:
    asked = gs.Traffic.poisson(rate=30, requests=400, input_tokens=200, output_tokens=50)
    one, two = (gs.capacity("gpt-2", "l4", asked, tpot_s=0.004, replicas=n, attainment=0.9).value for n in (1, 2))
    assert 1.6 < two / one < 2.4


@pytest.mark.slow
def test_replicas_under_round_robin_are_statistically_one_under_its_share() -> None:
    """Four times the traffic on four replicas: each gets every fourth request, so that gaps are more even, not less."""
    asked = {"input_tokens": (50, 400), "output_tokens": (20, 100)}
    few = [gs.Traffic.poisson(rate=12, requests=600, seed=n, **asked) for n in range(4)]
    fourfold = [gs.Traffic.poisson(rate=48, requests=2400, seed=n, **asked) for n in range(2)]
    one = [gs.serve("gpt-2", "l4", each) for each in few]
    many = [gs.serve("gpt-2", "l4", each, replicas=4, router="random") for each in fourfold]
    for name in ("mean_ttft_ms", "mean_tpot_ms", "mean_e2el_ms"):
        alone, shared = (np.mean([service.summary()[name] for service in part]) for part in (one, many))
        assert shared == pytest.approx(alone, rel=0.05), name
    turns = gs.serve("gpt-2", "l4", fourfold[0], replicas=4, router="round-robin")
    assert turns.summary()["mean_tpot_ms"] < 1.02 * many[0].summary()["mean_tpot_ms"]


@pytest.mark.slow
def test_chats_closed_loops_and_impatient_clients_have_fleets_too() -> None:
    chat = traffic(adapters=0, sessions=gs.Sessions(turns=3, think_s=0.5, shared_prefix_tokens=64, prefix_groups=4))
    closed = gs.Traffic.closed(concurrency=12, requests=100, input_tokens=100, output_tokens=40)
    hasty = traffic(rate=2000.0, adapters=0, client=gs.Client(timeout_s=0.2))
    for asked, router in ((chat, "prefix-aware"), (closed, "least-kv"), (hasty, "dynamo")):
        service = gs.serve("gpt-2", "l4", asked, replicas=3, router=router, view_age_s=0.05)
        log = service.log
        ended = int((log.status > 0).sum())
        assert ended == len(service.table)
    assert (gs.serve("gpt-2", "l4", hasty, replicas=2).log.status == 3).any()


@pytest.mark.slow
def test_a_chat_finds_its_prefix_where_it_was_before() -> None:
    chat = gs.Traffic.poisson(
        rate=8, requests=240, input_tokens=200, output_tokens=30,
        sessions=gs.Sessions(turns=4, think_s=1.0, shared_prefix_tokens=512, prefix_groups=6),
    )  # fmt: skip
    cached = {
        router: gs.serve("llama-3.1-8b", "l40s", chat, replicas=4, router=router).log.cached_tokens.sum()
        for router in ("round-robin", "prefix-aware", "llm-d", "dynamo")
    }
    assert all(cached[router] > 1.15 * cached["round-robin"] for router in ("prefix-aware", "llm-d", "dynamo"))
