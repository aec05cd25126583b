"""The logs of both pools and of the transfers, and one combined log of requests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from graphsim.serving.disaggregated.links import Links
from graphsim.serving.disaggregated.transfer import TransferPlan
from graphsim.serving.loop import close
from graphsim.serving.rows import Rows
from graphsim.serving.run_log import FINISHED, STATUSES, UNFINISHED, Floats, Ints, RunLog, empty_log


@dataclass(slots=True, kw_only=True)
class PoolLogs:
    """Logs of a disaggregated run.

    whole: requests as their clients see them
    prefill, decode: of each worker, those of a pool with the same columns of
        requests and runs of steps of their own
    prefill_worker, decode_worker: of each request, -1 if none
    prefilled_s: when its prompt was computed
    reserved_s: when a decode worker had blocks for it
    arrived_s: when its
        keys and values had arrived; heard_s: when the router learnt of it, if it waits for that
    kept_tokens: of its prompt that the decode worker had in its own prefix cache
    """

    whole: RunLog
    prefill: list[RunLog]
    decode: list[RunLog]
    links: Links
    prefill_worker: Ints
    decode_worker: Ints
    prefilled_s: Floats
    reserved_s: Floats
    arrived_s: Floats
    heard_s: Floats
    kept_tokens: Ints
    interrupted: bool = field(default=False)

    @classmethod
    def of(cls, requests: int, prefill: int, decode: int, way: TransferPlan) -> PoolLogs:
        """Empty logs. prefill, decode: how many workers there are."""
        whole, times = empty_log(requests), [np.full(requests, np.nan) for _ in range(4)]
        return cls(
            whole=whole, prefill=_alike(requests, prefill), decode=_alike(requests, decode),
            links=Links(way=way, senders=[0.0] * prefill, receivers=[0.0] * decode),
            prefill_worker=np.full(requests, -1), decode_worker=np.full(requests, -1), prefilled_s=times[0],
            reserved_s=times[1], arrived_s=times[2], heard_s=times[3], kept_tokens=np.zeros(requests, dtype=np.int64),
        )  # fmt: skip


def _alike(requests: int, workers: int) -> list[RunLog]:
    """Logs that share their columns of requests."""
    first = empty_log(requests)
    rest = [
        replace(first, runs=Rows(), gaps=Rows(), loads=[], switches=[], tier_loads=[], evicted=[])
        for _ in range(workers - 1)
    ]
    return [first, *rest]


def finished_log(logs: PoolLogs, now: float, cutoff_s: float) -> PoolLogs:
    """The logs of a run that is over, with the whole filled in."""
    for log in [*logs.prefill, *logs.decode]:
        log.end_s = min(now, cutoff_s)
    whole, prompts, answers = logs.whole, logs.prefill[0], logs.decode[0]
    whole.admitted_s, whole.cached_tokens = prompts.admitted_s, prompts.cached_tokens
    whole.loaded_tokens = prompts.loaded_tokens + answers.loaded_tokens
    heard = np.nan_to_num(logs.heard_s, nan=-np.inf)
    whole.first_token_s = np.fmax(answers.first_token_s, np.where(np.isnan(answers.first_token_s), np.nan, heard))
    whole.finished_s = np.fmax(answers.finished_s, np.where(np.isnan(answers.finished_s), np.nan, heard))
    finished, unfinished = STATUSES.index(FINISHED), STATUSES.index(UNFINISHED)
    for part in (prompts, answers):
        told = (part.status != unfinished) & ((part is answers) | (part.status != finished))
        whole.status = np.where((whole.status == unfinished) & told, part.status, whole.status)
    whole.preemptions = prompts.preemptions + answers.preemptions
    whole.load_stall_s = prompts.load_stall_s + answers.load_stall_s
    for log in [*logs.prefill, *logs.decode]:
        whole.loads.extend(log.loads)
        whole.tier_loads.extend(log.tier_loads)
        whole.evicted.extend(log.evicted)
    whole.loads.sort()
    whole.tier_loads.sort()
    whole.evicted.sort()
    for log in logs.decode:
        for seconds, count in log.gaps:
            whole.gaps.append((seconds, int(count)))
    whole.runs = max(logs.decode, key=lambda log: sum(row[1] for row in log.runs)).runs
    whole.interrupted = logs.interrupted
    close(whole, now, cutoff_s)
    return logs
