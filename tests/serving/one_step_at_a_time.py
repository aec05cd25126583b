"""A plain loop for strategies of weights: each request takes so many steps of a tenth of a second."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.weights import Demand, Weights
from graphsim.traffic.table import BASE

STEP_S = 0.1


@dataclass
class Outcome:
    """When requests ended, who ran in each step beside what was merged, and how often somebody was computed beside."""

    ended: dict[int, float] = field(default_factory=dict)
    batches: list[tuple[int, tuple[int, ...], int]] = field(default_factory=list)  # merged, adapters, computed beside
    stall_s: float = 0.0


def served(
    weights: Weights, store: AdapterStore, requests: list[tuple[float, int, int]], places: int = 4, most: int = 20_000
) -> Outcome:
    """Serves (arrival, adapter, steps) in order of arrival as far as weights and slots admit."""
    coming, waiting = sorted(range(len(requests)), key=lambda r: requests[r][0]), list[int]()
    left, running, found, now, steps = {r: requests[r][2] for r in coming}, list[int](), Outcome(), 0.0, 0
    while coming or waiting or running:
        assert steps < most, "somebody is never served"
        while coming and requests[coming[0]][0] <= now:
            waiting.append(coming.pop(0))
        if not waiting and not running:
            now = requests[coming[0]][0]
            continue
        stall = _admitted(weights, store, requests, waiting, running, now, places, steps)
        used = {requests[r][1] for r in running}
        if running:
            found.batches.append((weights.merged, tuple(sorted(used)), weights.beside(used)))
        now += stall + STEP_S
        found.stall_s += stall
        steps += 1
        for request in list(running):
            left[request] -= 1
            if not left[request]:
                running.remove(request)
                found.ended[request] = now
        for adapter in used - {BASE} - {requests[r][1] for r in running}:
            store.touch(adapter, now)
    return found


def _admitted(
    weights: Weights, store: AdapterStore, requests: list[tuple[float, int, int]], waiting: list[int],
    running: list[int], now: float, places: int, steps: int,
) -> float:  # fmt: skip
    demand = Demand(
        waiting=Counter(requests[r][1] for r in waiting), running=Counter(requests[r][1] for r in running),
        waiting_since={requests[r][1]: requests[r][0] for r in reversed(waiting)}, places=places, steps=steps,
    )  # fmt: skip
    stall = weights.plan(now, demand, store)
    for request in list(waiting):
        adapter = requests[request][1]
        used = {requests[r][1] for r in running} - {BASE}
        if len(running) == places:
            break
        if not weights.admits(adapter) or (adapter != BASE and not store.room_for(adapter, used, now)):
            continue
        if adapter != BASE and adapter not in used:
            stall += store.use(adapter, now, {*used, adapter})
        waiting.remove(request)
        running.append(request)
    return stall
