"""Where a server's requests spent their time, and what they waited for.

Waiting is attributed per run of steps, weighted by the number of waiting requests, to whatever was full in that step.
In steps with nothing full, a request only waits for the current step to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphsim.result import plain
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import FINISHED, STATUSES, RunLog, StepRun
from graphsim.traffic.table import BASE, RequestTable
from graphsim.units import seconds_text

CAUSES = {
    "places": "places in the batch (max_num_seqs)",
    "kv": "KV cache blocks",
    "slots": "adapter slots (max_loras)",
    "budget": "tokens of a step (max_num_batched_tokens)",
    "turn": "their adapter's turn in the weights",
    "step": "the step under way",
}
"""Causes of waiting, in order; the first one that is full counts."""

KV_FULL = 0.97
"""Share of blocks in use from which a cache counts as full: the rest is less than a prompt needs."""
BUDGET_FULL = 0.98
SLOW = 1.5
"""Slowdown of a token relative to a request alone from which the batch's compute counts as the limit."""
UNFAIR = 5.0
"""Ratio of the worst adapter's mean time to first token to the median one's from which service counts as unfair."""
FEW = 5
"""Number of an adapter's requests below which its mean is not significant."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottlenecks:
    """Where a server's time goes.

    busy: share of the run in which the engine worked
    kv_use: mean share of blocks in use during that time
    slowdown: time of a token relative to a request alone on the server; 0 if the latter is unknown
    spent, slowest: mean seconds of a finished request, and of the slowest hundredth, in the front end, in the queue,
        until the first token, and in generation
    waiting: shares of all waiting by what was full, with keys of CAUSES
    stalled: share of the busy time lost to loads
    loads, disk_loads: number of adapter loads, and of those from disk
    preempted: preemptions per request
    worst_adapter: its number, its mean time to first token, and the median
        adapter's; worst_name: its name
    """

    busy: float
    kv_use: float
    spent: Mapping[str, float]
    slowest: Mapping[str, float]
    waiting: Mapping[str, float] = field(default_factory=dict)
    stalled: float = 0.0
    switching: float = 0.0
    slowdown: float = 0.0
    loads: int = 0
    disk_loads: int = 0
    preempted: float = 0.0
    worst_adapter: tuple[int, float, float] | None = None
    worst_name: str = ""

    @property
    def queue_share(self) -> float:
        """The queue's share of the slowest requests' time."""
        whole = sum(self.slowest.values())
        return self.slowest["queue"] / whole if whole > 0 else 0.0

    @property
    def limit(self) -> str:
        """What limits: a key of CAUSES but `step`, `compute`, `loads`, `switches`, `front end` or `nothing`."""
        if self.switching > 0.2:
            return "switches"
        if self.stalled > 0.2:
            return "loads"
        held = {cause: share for cause, share in self.waiting.items() if cause != "step"}
        if self.queue_share > 0.2 and held and max(held.values()) > 0.3:
            return max(held, key=lambda cause: held[cause])
        if self.slowdown > SLOW:
            return "compute"
        whole = sum(self.spent.values())
        return "front end" if whole > 0 and self.spent["front end"] > 0.3 * whole else "nothing"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        worst = self.worst_adapter
        return {
            "limit": self.limit, "busy": plain(self.busy), "kv_use": plain(self.kv_use), "spent_s": dict(self.spent),
            "slowest_s": dict(self.slowest), "waiting": dict(self.waiting), "stalled": plain(self.stalled),
            "switching": plain(self.switching), "slowdown": plain(self.slowdown),
            "loads": self.loads, "disk_loads": self.disk_loads,
            "preemptions_per_request": plain(self.preempted),
            "worst_adapter": None if worst is None else {
                "adapter": worst[0], "mean_ttft_s": plain(worst[1]), "usual_mean_ttft_s": plain(worst[2]),
            },
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Sentences: the limit, and the evidence."""
        found = [self._verdict()]
        if sum(self.slowest.values()) > 0:
            found.append(f"a request spends {_parts(self.spent)}; the slowest 1% {_parts(self.slowest)}")
        held = sorted(((share, cause) for cause, share in self.waiting.items() if share >= 0.01), reverse=True)
        if held and (self.spent["queue"] > 0.05 * sum(self.spent.values()) or self.queue_share > 0.2):
            found.append(
                "waiting requests wait for " + ", ".join(f"{CAUSES[cause]} {share:.0%}" for share, cause in held)
            )
        if self.stalled >= 0.005:
            found.append(
                f"{self.loads:,} loads of adapters, {self.disk_loads:,} of them from disk, hold up "
                f"{self.stalled:.1%} of the engine's time"
            )
        if self.switching >= 0.005:
            found.append(f"switches of merged weights take {self.switching:.1%} of the engine's time")
        if self.preempted >= 0.005:
            found.append(f"{self.preempted:.2f} preemptions per request: their tokens are computed again")
        if self.worst_adapter is not None:
            number, worst, usual = self.worst_adapter
            if worst > UNFAIR * usual:
                found.append(
                    f"{self.worst_name or f'adapter {number}'} suffers: its first tokens take {seconds_text(worst)} on "
                    f"average, those of the median adapter {seconds_text(usual)}"
                )
        return found

    def _verdict(self) -> str:
        text = {
            "places": "places in the batch limit (max_num_seqs)", "kv": "the KV cache limits",
            "slots": "adapter slots limit (max_loras)", "budget": "the step's token budget limits",
            "turn": "one adapter at a time limits (merged weights)", "loads": "loads of adapters limit",
            "switches": "switches of merged weights limit",
            "compute": "compute limits", "front end": "the front end limits", "nothing": "nothing limits yet",
        }[self.limit]  # fmt: skip
        slower = f", a token takes {self.slowdown:.1f} times as long as alone" if self.slowdown else ""
        return f"{text}; {self.kv_use:.0%} of the KV cache is in use{slower}"


def bottlenecks(
    table: RequestTable,
    rules: Rules,
    log: RunLog,
    alone_s: float = 0.0,
    *,
    in_turn: bool = False,
    names: Sequence[str] = (),
) -> Bottlenecks:
    """What limited a run, from its log.

    alone_s: seconds per token of a request alone on the server
    in_turn: whether the weights hold one adapter at a
        time, so that a request that waits despite free room waits for its adapter's turn; names: of the adapters
    """
    runs = np.asarray(log.runs, dtype=float).reshape(-1, len(StepRun.COLUMNS))
    column = dict(zip(StepRun.COLUMNS, runs.T, strict=True))
    seconds = column["seconds"]
    worked = float(seconds.sum())
    kv_use = column["kv_blocks"] / rules.kv_blocks
    done = log.status == STATUSES.index(FINISHED)
    spent = _spent(log, done)
    whole = np.sum(list(spent.values()), axis=0)
    late = whole >= np.quantile(whole, 0.99) if whole.size else np.zeros(0, dtype=bool)
    switching = sum(row[1] for row in log.switches)
    token_s, tokens = float(seconds @ column["batch"]), float(column["steps"] @ column["batch"])
    end, worst = max(log.end_s, 1e-9), _worst(table, log)
    return Bottlenecks(
        busy=min(worked / end, 1.0), kv_use=float((kv_use * seconds).sum() / worked) if worked else 0.0,
        spent={name: _mean(values) for name, values in spent.items()},
        slowest={name: _mean(values[late]) for name, values in spent.items()},
        waiting=_held(column, rules, in_turn), stalled=float(column["stall_s"].sum()) / worked if worked else 0.0,
        switching=switching / worked if worked else 0.0,
        slowdown=token_s / tokens / alone_s if tokens and alone_s else 0.0,
        loads=len(log.loads), disk_loads=int(sum(row[3] for row in log.loads)),
        preempted=float(log.preemptions.sum()) / max(len(table), 1), worst_adapter=worst,
        worst_name=names[worst[0]] if worst is not None and names else "",
    )  # fmt: skip


def _spent(log: RunLog, done: Any) -> dict[str, Floats]:
    """Seconds of each finished request, by stage; time that a client adds on the way back counts as front end."""
    sent, received, admitted = log.sent_s[done], log.received_s[done], log.admitted_s[done]
    first, finished = log.first_token_s[done], log.finished_s[done]
    return {
        "front end": received - sent, "queue": admitted - received, "first token": first - admitted,
        "generation": finished - first,
    }  # fmt: skip


def _held(column: Mapping[str, Floats], rules: Rules, in_turn: bool) -> dict[str, float]:
    """Shares of all waiting by the first resource that was full."""
    steps = np.maximum(column["steps"], 1.0)
    weight = column["waiting"] * column["seconds"]
    if not weight.sum() > 0:
        return {}
    slots = rules.adapters.max_loras
    full = {
        "places": column["batch"] + column["prompts"] / steps >= rules.max_num_seqs,
        "kv": column["kv_blocks"] >= (KV_FULL - rules.watermark) * rules.kv_blocks,
        "slots": (column["adapters"] >= slots) if slots else np.zeros(len(weight), dtype=bool),
        "budget": column["prompt_tokens"] / steps + column["batch"] >= BUDGET_FULL * rules.max_num_batched_tokens,
    }
    found: dict[str, float] = {}
    left = np.ones(len(weight), dtype=bool)
    for cause, held in full.items():
        found[cause] = float(weight[left & held].sum() / weight.sum())
        left &= ~held
    return found | {"turn" if in_turn else "step": float(weight[left].sum() / weight.sum())}


def _worst(table: RequestTable, log: RunLog) -> tuple[int, float, float] | None:
    """The adapter whose first tokens take longest on average, and the median of these means."""
    ttft = log.first_token_s - log.sent_s
    counted = (table.adapter != BASE) & np.isfinite(ttft)
    adapters, ttft = table.adapter[counted], ttft[counted]
    if not adapters.size:
        return None
    count = np.bincount(adapters)
    mean = np.bincount(adapters, weights=ttft) / np.maximum(count, 1)
    enough = np.flatnonzero(count >= FEW)
    if len(enough) < 2:
        return None
    worst = enough[np.argmax(mean[enough])]
    return int(worst), float(mean[worst]), float(np.median(mean[enough]))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0


def _parts(spent: Mapping[str, float]) -> str:
    whole = sum(spent.values())
    told = [f"{value / whole:.0%} in {name}" for name, value in spent.items() if whole > 0 and value >= 0.005 * whole]
    return f"{seconds_text(whole)} ({', '.join(told)})"
