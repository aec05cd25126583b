"""A server that another program drives."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.serving.simulator import Answer, Simulator
from graphsim.traffic.table import BASE

TRAFFIC = gs.Traffic.poisson(rate=30, requests=80, input_tokens=(20, 300), output_tokens=(2, 40), adapters=4)
LORA = gs.LoraConfig(rank=8, max_loras=2)


def driven(simulator: Simulator, table: Any) -> dict[int, Answer]:
    """Each request is submitted when it is sent."""
    found: dict[int, Answer] = {}
    coming = list(range(len(table)))
    while coming or simulator.next_time < inf:
        while coming and (at := float(table.arrival_s[coming[0]])) <= max(simulator.next_time, simulator.now):
            row = coming.pop(0)
            adapter = None if table.adapter[row] == BASE else int(table.adapter[row])
            simulator.submit(
                input_tokens=int(table.input_tokens[row]), output_tokens=int(table.output_tokens[row]), adapter=adapter,
                at=max(at, simulator.now),
            )  # fmt: skip
        if simulator.next_time < inf:
            found |= {answer.number: answer for answer in simulator.step()}
    return found


def test_requests_that_come_one_by_one_are_answered_as_serve_answers_them() -> None:
    table = TRAFFIC.table()
    service = gs.serve("gpt-2", "l4", TRAFFIC, lora=LORA)
    mean = round(float(table.input_tokens.mean()))
    found = driven(Simulator("gpt-2", "l4", adapters=4, lora=LORA, mean_prompt=mean), table)
    assert sorted(found) == list(range(80)) and {answer.status for answer in found.values()} == {"finished"}
    for name in ("ttft_s", "e2e_s"):
        own = np.array([getattr(found[number], name) for number in range(80)])
        assert own == pytest.approx(service.requests[name].to_numpy(), rel=1e-9), name
    assert [found[n].load_stall_s for n in range(80)] == service.requests["load_stall_s"].tolist()


def test_memory_grows_with_requests_in_flight_only() -> None:
    simulator = Simulator("gpt-2", "l4")
    for _ in range(300):
        simulator.submit(input_tokens=50, output_tokens=3)
        while simulator.next_time < inf:
            simulator.step()
    assert len(simulator._log.sent_s) == 1 and (simulator.running, simulator.waiting) == (0, 0)


def test_the_state_between_events_can_be_looked_at() -> None:
    simulator = Simulator(gs.Deployment("gpt-2", "l4", lora=LORA), adapters=3)
    for adapter in (0, 2):
        simulator.submit(input_tokens=64, output_tokens=100, adapter=adapter)
    assert (simulator.running, simulator.waiting, simulator.kv_use, simulator.resident) == (0, 2, 0.0, [])
    while simulator.waiting:
        simulator.step()
    assert simulator.running == 2 and 0.0 < simulator.kv_use < 1.0 and simulator.resident == [0, 2]


def test_what_never_can_run_is_told() -> None:
    simulator = Simulator("gpt-2", "l4")
    number = simulator.submit(input_tokens=5000, output_tokens=10)
    ended = []
    while not ended and simulator.next_time < inf:
        ended = simulator.step()
    assert [(answer.number, answer.status) for answer in ended] == [(number, "too long")]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"input_tokens": 0, "output_tokens": 1}, "input_tokens"),
        ({"input_tokens": 1, "output_tokens": 0}, "output_tokens"),
        ({"input_tokens": 1, "output_tokens": 1, "adapter": 2}, "adapter = 2 does not exist; adapters are 0 to 1"),
        ({"input_tokens": 1, "output_tokens": 1, "at": -1.0}, "at = -1.0 is not allowed; expected seconds from 0"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(gs.ConfigError, match=words):
        Simulator("gpt-2", "l4", adapters=2).submit(**asked)


def test_several_replicas_are_several_simulators() -> None:
    with pytest.raises(gs.ConfigError, match="a Simulator is one server"):
        Simulator("gpt-2", "l4", replicas=2)
