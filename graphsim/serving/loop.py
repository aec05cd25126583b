"""A table of requests served by one engine, from the first to the last answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

import numpy as np

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.clients import Clients
from graphsim.serving.endings import Endings
from graphsim.serving.engine import Engine
from graphsim.serving.front import Front
from graphsim.serving.requests import RequestMaker
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import STATUSES, UNFINISHED, RunLog, empty_log
from graphsim.serving.scheduler import Scheduler
from graphsim.serving.step_price import StepPrice
from graphsim.serving.table_checks import check_table
from graphsim.serving.weights import Weights
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable

Progress = Callable[[float, int], None]
PROGRESS_S = 0.1
PATIENT, AT_ONCE = Client(), Front()


def run(
    table: RequestTable, rules: Rules, price: StepPrice, *, client: Client = PATIENT, concurrency: int | None = None,
    front: Front = AT_ONCE, store: AdapterStore | None = None, weights: Weights | None = None,
    progress: Progress | None = None,
) -> RunLog:  # fmt: skip
    """Serve the requests of a table with one engine.

    client: its connections, patience and end of the run
    front: the way through the server's front end
    concurrency: most requests in flight (closed loop): rows without a time are sent when another is answered; a
        session counts as one until its last answer
    store: the adapter store; without it every adapter is resident and loads take no time
    weights: a strategy that merges adapters into the weights; by default all are computed in addition to them
    progress: called with the simulated seconds and the requests that ended, about every 0.1 s
    An interruption (KeyboardInterrupt) ends the run with what was simulated until then. Raises ConfigError for a table
    that no server can be sent: no tokens, an answer to a later request, adapters without slots.
    """
    check_table(table, rules, concurrency)
    if weights is not None and store is None:
        store = AdapterStore(rules.adapters, price.load)
    log = empty_log(len(table))
    scheduler = Scheduler(rules, store, log, weights)
    clients = Clients(table, client, front, concurrency, RequestMaker(table, rules.block_tokens), log)
    engine = Engine(scheduler, Endings(scheduler, clients, client, log), clients, price, log, client.cutoff_s)
    try:
        _until_all_is_answered(engine, clients, progress)
    except KeyboardInterrupt:
        log.interrupted = True
    if store is not None:
        log.loads.extend(store.loads)
    if weights is not None:
        log.switches.extend(weights.switches)
    close(log, engine.now, client.cutoff_s)
    return log


def _until_all_is_answered(engine: Engine, clients: Clients, progress: Progress | None) -> None:
    """Or the cut-off."""
    if progress is None:
        while engine.begin() < inf:
            engine.finish()
        return
    shown = time.perf_counter()
    while engine.begin() < inf:
        engine.finish()
        if time.perf_counter() - shown > PROGRESS_S:
            progress(engine.now, engine.endings.count + clients.refused)
            shown = time.perf_counter()


def close(log: RunLog, now: float, cutoff_s: float) -> None:
    """Mark requests that ended after the cut-off as unfinished."""
    log.end_s = min(now, cutoff_s)
    late = log.finished_s > cutoff_s
    log.status[late] = STATUSES.index(UNFINISHED)
    log.finished_s[late] = np.nan
    log.first_token_s[log.first_token_s > cutoff_s] = np.nan
