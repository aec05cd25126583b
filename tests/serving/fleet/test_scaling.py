"""Replicas that come and go with the load."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.analysis.slots import footprint_of
from graphsim.serving.fleet.fleet_service import FleetService
from graphsim.serving.fleet.scaler import Scaler
from graphsim.serving.fleet.scaling import Scaling, weights_load_s


def served(**changes: Any) -> FleetService:
    burst = gs.Traffic.poisson(rate=[(1, 20), (16, 40), (1, 60)], input_tokens=200, output_tokens=400)
    scaling = Scaling(**{"target": 3, "most": 6, "every_s": 5.0, "calm_s": 10.0, "cold_start_s": 5.0} | changes)
    found = gs.serve("gpt-2", "l4", burst, scaling=scaling)
    assert isinstance(found, FleetService)
    return found


def test_wanted_replicas_are_those_of_the_autoscaler() -> None:
    scaling = Scaling(target=10, least=1, most=8)
    assert [scaling.wanted(2, load) for load in (20, 21.9, 23, 40, 9, 0, 1000)] == [2, 2, 3, 4, 1, 1, 8]


def test_a_new_replica_takes_nothing_before_it_is_ready() -> None:
    scaler = Scaler(Scaling(target=1, most=3, every_s=10.0), 1, cold_start_s=25.0)
    loads = [9]
    while scaler.decide(loads):
        loads.append(0)
    assert len(loads) == 3 and scaler.serving == [0] and scaler.next_s == 20.0
    while scaler.next_s < 35.0:
        assert not scaler.decide(loads) and scaler.serving == [0]
    assert not scaler.decide(loads) and scaler.serving == [0, 1, 2]
    assert scaler.spans == [[0.0, inf], [10.0, inf], [10.0, inf]]


def test_fewer_replicas_only_after_the_load_has_been_low_for_a_while() -> None:
    scaler = Scaler(Scaling(target=2, most=4, every_s=10.0, calm_s=35.0), 3, cold_start_s=0.0)
    for load in ([2, 2, 2], [1, 0, 0], [1, 0, 0], [1, 0, 0]):
        assert not scaler.decide(load) and len(scaler.serving) == 3
    assert not scaler.decide([1, 0, 0])
    assert scaler.serving == [0]
    scaler.decide([1, 0, 0])
    assert [end for _, end in scaler.spans] == [inf, 60.0, 60.0]


@pytest.mark.slow
def test_a_burst_gets_more_replicas_and_they_go_again() -> None:
    found = served()
    counts = [count for _, count in found.history]
    assert max(counts) > 1 and counts[-1] < max(counts) and counts[0] == 1
    frame = found.requests
    started = {number: start for number, (start, _) in enumerate(found.spans)}
    assert (frame["admitted_s"] >= frame["replica"].map(started) + 5.0 * (frame["replica"] > 0)).all()
    assert found.replica_s < found.servers * found.duration_s
    assert found.summary()["completed"] == len(found.table)


@pytest.mark.slow
def test_slower_starts_make_slower_answers() -> None:
    quick, slow = (served(cold_start_s=seconds).summary()["mean_tpot_ms"] for seconds in (1.0, 30.0))
    assert quick < slow


def test_weights_take_their_way_from_the_disk() -> None:
    one, two = (
        gs.Deployment("llama-3.1-8b", "l40s", parallelism=gs.Parallelism(tp=tp), engine="vllm") for tp in (1, 2)
    )
    engine = one.engine
    assert engine is not None
    bytes_in_all = float(np.max(footprint_of(one).weights_bytes))
    assert weights_load_s(one) == pytest.approx(
        bytes_in_all / min(float(engine.cold_disk_bytes_per_s), float(one.device.host_link.bytes_per_s))
    )
    assert weights_load_s(two) == pytest.approx(weights_load_s(one), rel=0.15)  # the same disk


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target": 0}, "target = 0 is not allowed"),
        ({"target": 1, "least": 0}, "least = 0 is not allowed"),
        ({"target": 1, "least": 5, "most": 4}, "least = 5 is above most = 4"),
        ({"target": 1, "cold_start_s": -1}, "cold_start_s = -1 is not allowed"),
        ({"target": 1, "every_s": inf}, "every_s = inf is not allowed"),
    ],
)
def test_what_cannot_be_scaled_is_one_sentence(given: dict[str, Any], words: str) -> None:
    with pytest.raises(gs.ConfigError, match=words):
        Scaling(**given)


def test_the_first_replicas_lie_within_the_bounds() -> None:
    traffic = gs.Traffic.poisson(rate=1, requests=5, input_tokens=10, output_tokens=5)
    with pytest.raises(
        gs.ConfigError,
        match="replicas = 9 at the start is not allowed; expected a number from 1 to 4, the least and most",
    ):
        gs.serve("gpt-2", "l4", traffic, replicas=9, scaling=Scaling(target=1, most=4))
