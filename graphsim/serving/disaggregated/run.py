"""Requests through prefill workers, links and decode workers, on one clock.

Each event is one of a worker's engine (a step with prompts, a run of decode steps), the end of a transfer, or a
client's request. Effects on another worker go to that worker's inbox, which its engine reads between steps.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.clients import Clients
from graphsim.serving.disaggregated.decode_worker import DecodeWorker
from graphsim.serving.disaggregated.placing import Placing
from graphsim.serving.disaggregated.prefill_worker import PrefillWorker
from graphsim.serving.disaggregated.run_logs import PoolLogs, finished_log
from graphsim.serving.disaggregated.transfer import TransferPlan
from graphsim.serving.disaggregated.transferred import LOADS, TransferredRequest
from graphsim.serving.front import Front
from graphsim.serving.requests import Request, RequestMaker
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import STATUSES, TOO_LONG
from graphsim.serving.step_price import StepPrice
from graphsim.serving.table_checks import check_table
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable

Progress = Callable[[float, int], None]
PROGRESS_S = 0.1
PATIENT, AT_ONCE = Client(), Front()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Identical workers.

    store: creates the adapter store of one worker; None if no request has an adapter
    """

    rules: Rules
    price: StepPrice
    workers: int = 1
    store: Callable[[], AdapterStore | None] = lambda: None


def run_pools(
    table: RequestTable, prefill: Pool, decode: Pool, way: TransferPlan, *, client: Client = PATIENT,
    concurrency: int | None = None, front: Front = AT_ONCE, router: str = "least-loaded",
    progress: Progress | None = None, warm: Sequence[Collection[int]] = (),
) -> PoolLogs:  # fmt: skip
    """Serve the requests of a table with workers for prompts and workers for generation.

    client, concurrency, front, progress: as in `graphsim.serving.loop.run`
    router: how a request goes to a prefill worker, and from there to a decode worker
    warm: of each prefill worker, the rows whose prompts its prefix cache has when it starts
    An interruption (KeyboardInterrupt) ends the run with what was simulated until then. Raises ConfigError as `run`.
    """
    check_table(table, decode.rules, concurrency)
    serving = _Serving(table, prefill, decode, way, client, concurrency, front, router)
    for prompts, rows in zip(serving.prefill, warm, strict=False):
        prompts.warm(RequestMaker(table, prefill.rules.block_tokens).one(row, 0.0) for row in rows)
    try:
        serving.run(client.cutoff_s, progress)
    except KeyboardInterrupt:
        serving.logs.interrupted = True
    for worker in serving.workers:
        worker.log.loads.extend(worker.store.loads if worker.store is not None else ())
    return finished_log(serving.logs, serving.now, client.cutoff_s)


class _Serving:
    """All workers and the transfers between them. now: the time of the last event."""

    def __init__(
        self, table: RequestTable, prefill: Pool, decode: Pool, way: TransferPlan, client: Client,
        concurrency: int | None, front: Front, router: str,
    ) -> None:  # fmt: skip
        self.now, self.way, self.decode_rules = 0.0, way, decode.rules
        self.logs = PoolLogs.of(len(table), prefill.workers, decode.workers, way)
        self.links = self.logs.links
        self.clients = Clients(
            table,
            replace(client, timeout_s=inf),
            front,
            concurrency,
            RequestMaker(table, decode.rules.block_tokens),
            self.logs.whole,
        )
        patient = replace(client, send_s=0.0, reply_s=0.0)
        self.prefill = [
            PrefillWorker(
                prefill.rules, prefill.price, log, client=patient, store=prefill.store(), tell=self._computed
            )
            for log in self.logs.prefill
        ]  # fmt: skip
        self.decode = [
            DecodeWorker(
                decode.rules, decode.price, log, way.hand_off, client=client, reply_s=front.reply_s,
                store=decode.store(), starts=self._has_blocks, tell=self._ended,
            )
            for log in self.logs.decode
        ]  # fmt: skip
        self.workers: list[PrefillWorker | DecodeWorker] = [*self.prefill, *self.decode]
        self.placing = Placing(router, self.prefill, self.decode)
        self.arriving: list[tuple[float, int, TransferredRequest]] = []
        self.handed: dict[int, TransferredRequest] = {}
        # waiting for blocks of a decode worker before their prompts
        self.waiting: dict[int, tuple[Request, float]] = {}
        self.count = 0
        self.touched = False

    def run(self, cutoff_s: float, progress: Progress | None) -> None:
        """Run until all requests are answered, or until the cut-off."""
        shown = time.perf_counter()
        workers = self.workers
        while True:
            self._receive()
            at = min(self._begun(workers), self.clients.next_s)
            at = min(at, self.arriving[0][0]) if self.arriving else at
            if at == inf or at > cutoff_s:
                return
            self.now = at
            self._deliver(at)
            for worker in workers:
                if worker.ends_by(at):
                    worker.step()
            if progress is not None and time.perf_counter() - shown > PROGRESS_S:
                progress(self.now, self.count + self.clients.refused)
                shown = time.perf_counter()

    def _begun(self, workers: list[PrefillWorker | DecodeWorker]) -> float:
        """When the next event of any worker ends, after all have begun theirs, which may wake others."""
        while True:
            self.touched = False
            at = min(worker.next_time for worker in workers)
            if not self.touched:
                return at

    def _receive(self) -> None:
        """Receive the requests that have arrived by now."""
        while self.clients.next_s <= self.now:
            for request in self.clients.receive(self.now):
                self._take(request, float(self.logs.whole.received_s[request.row]))

    def _take(self, request: Request, at_s: float) -> None:
        """A request goes to a prefill worker, or first to a decode worker for its blocks."""
        row, rules = request.row, self.decode_rules
        if request.inputs + request.outputs > rules.max_model_len or (
            request.most_cached > rules.kv_blocks * rules.block_tokens
        ):
            self.logs.whole.status[row] = STATUSES.index(TOO_LONG)
            self.count += 1
            self.clients.ended(row, at_s, answered=False)
            return
        self.handed[row] = TransferredRequest.of(request)
        self.logs.prefill_worker[row] = self.placing.prefill()
        if self.way.hand_off.decoder_first:
            self._ask(row, max(at_s, self.now))
            self.waiting[row] = request, at_s
        else:
            self.prefill[self.logs.prefill_worker[row]].put(request, at_s)

    def _ask(self, row: int, at_s: float) -> None:
        """Request blocks from a decode worker."""
        self.logs.decode_worker[row] = number = self.placing.decode()
        self.decode[number].requests += 1
        self.decode[number].put(self.handed[row], at_s)

    def _has_blocks(self, request: TransferredRequest, at_s: float, cached: int) -> float:
        """A decode worker has blocks for a prompt, and `cached` of its tokens; returns when it has all, if known."""
        row, self.touched = request.row, True
        self.logs.reserved_s[row], self.logs.kept_tokens[row] = at_s, cached
        if row in self.waiting:
            prompt, _ = self.waiting.pop(row)
            self.prefill[self.logs.prefill_worker[row]].put(prompt, at_s)
            return inf
        end_s = self._send(row, at_s, 0.0)
        if end_s > at_s:
            self.decode[self.logs.decode_worker[row]].put(request, end_s)
        return end_s

    def _computed(self, row: int, at_s: float, answered: bool) -> None:
        """A prefill worker is done with a request."""
        worker = self.prefill[self.logs.prefill_worker[row]]
        if not answered:
            worker.forget(row)
            self._lose(row, at_s)
            return
        worker.keep(row)
        self.logs.prefilled_s[row] = at_s
        if self.handed[row].over:  # its decode worker has given up on it
            worker.release(row, at_s)
            self._give_back(row, at_s)
            return
        if self.way.hand_off.decoder_first:
            end_s = self._send(row, at_s, at_s - float(self.logs.prefill[0].admitted_s[row]))
            self.decode[self.logs.decode_worker[row]].put(self.handed[row], end_s)
        else:
            self._ask(row, at_s)

    def _send(self, row: int, at_s: float, computed_s: float) -> float:
        """Start the transfer of keys and values; returns when it ends."""
        request, logs = self.handed[row], self.logs
        tokens = request.inputs - int(logs.kept_tokens[row])
        sender, receiver = int(logs.prefill_worker[row]), int(logs.decode_worker[row])
        end_s = self.links.send(row, sender, receiver, tokens, at_s, computed_s)
        logs.arrived_s[row] = end_s
        heapq.heappush(self.arriving, (end_s, row, request))
        return end_s

    def _deliver(self, now: float) -> None:
        """Finish completed transfers: release the prefill worker's blocks and notify the router."""
        while self.arriving and self.arriving[0][0] <= now:
            at_s, row, _ = heapq.heappop(self.arriving)
            worker = self.prefill[self.logs.prefill_worker[row]]
            if self.way.hand_off.router_waits:
                self.logs.heard_s[row] = worker.boundary_s(at_s)
            worker.release(row, at_s)

    def _lose(self, row: int, at_s: float) -> None:
        """A prefill worker had no room for a request, or the client gave up."""
        known = self.handed[row].over
        self.handed[row].over = True
        self._give_back(row, at_s)
        if not known:
            self._ended(row, at_s, False)

    def _give_back(self, row: int, at_s: float) -> None:
        """Release a decode worker's blocks for a prompt that will not come."""
        if self.handed[row].state == LOADS:
            self.decode[self.logs.decode_worker[row]].put(self.handed[row], at_s)

    def _ended(self, row: int, at_s: float, answered: bool) -> None:
        """A request has ended, which its client learns when the router does."""
        self.count += 1
        self.waiting.pop(row, None)
        if self.logs.decode_worker[row] >= 0:
            self.decode[self.logs.decode_worker[row]].requests -= 1
        if self.logs.prefill_worker[row] >= 0 and np.isnan(self.logs.arrived_s[row]):
            self.prefill[self.logs.prefill_worker[row]].release(row, self.now)
        heard_s = float(self.logs.heard_s[row])
        self.clients.ended(row, max(at_s, heard_s) if heard_s == heard_s else at_s, answered=answered)
