"""One engine driven from outside, one event at a time, with requests submitted while it runs."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from graphsim.errors import ConfigError
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.endings import Endings
from graphsim.serving.engine import DECODE, NOTHING, Engine
from graphsim.serving.inbox import Inbox
from graphsim.serving.loop import close
from graphsim.serving.requests import Request
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.scheduler import Scheduler
from graphsim.serving.step_price import StepPrice
from graphsim.serving.weights import Weights
from graphsim.traffic.client import Client
from graphsim.units import amount_text

PATIENT = Client()


class Ended(NamedTuple):
    """How a request ended: its row in the log, when its client knew, and whether it was answered."""

    row: int
    at_s: float
    answered: bool


class DrivenEngine:
    """The engine of `graphsim.serving.loop.run`, for a router, another simulator or a learning agent to drive.

    An event is a step with prompts, a run of identical decode steps, or a wait. It begins when `next_time` is asked
    for or `step` is called, and ends with `step`; in between `now` is its beginning. Submit all requests that arrive
    up to `now`
    before that: a step takes the requests known when it began, as a scheduler does. Requests that arrive during an
    event may be submitted before it ends: a run of steps is cut where the scheduler sees the newcomer, so the time of
    submission does not matter. With all requests submitted at the start, results equal `run`'s to the last bit.

        engine = DrivenEngine(rules, price, log=empty_log(len(table)))
        maker = RequestMaker(table, rules.block_tokens)
        engine.submit(maker.one(0, sent_s=0.0), received_s=0.0)
        while engine.next_time < inf:
            for row, at_s, answered in engine.step():
                ...
        log = engine.close()

    now: seconds on the engine's clock; log: of all its requests, by their rows, and of its steps
    engine: the underlying engine; its `batch`, `queue` and `running` may be read but not changed
    """

    def __init__(
        self, rules: Rules, price: StepPrice, *, log: RunLog, client: Client = PATIENT, reply_s: float = 0.0,
        store: AdapterStore | None = None, weights: Weights | None = None,
        tell: Callable[[int, float, bool], None] | None = None,
    ) -> None:  # fmt: skip
        """An idle engine at 0 s.

        rules, price, store, weights: as in `run`
        log: an empty one (`empty_log`) with a row for each request that
            will be submitted; several engines may share its columns of requests
        client: its patience (timeout_s), its delay on the way back (reply_s), and the end of the run (cutoff_s);
            connections are left to the caller
        reply_s: of the front end, from a token to its leaving for the client
        tell: called with row, time and whether it was answered as soon as a request ends, instead of returning it from
            `step`
        """
        if weights is not None and store is None:
            store = AdapterStore(rules.adapters, price.load)
        self.log, self.rules, self.store, self._weights = log, rules, store, weights
        self._client = client
        self._ended: list[Ended] = []
        self.inbox = Inbox(log, tell or self._note, timeout_s=client.timeout_s, reply_s=reply_s + client.reply_s)
        scheduler = Scheduler(rules, store, log, weights)
        endings = Endings(scheduler, self.inbox, client, log)
        self.engine = Engine(scheduler, endings, self.inbox, price, log, client.cutoff_s)

    def submit(self, request: Request, received_s: float, place: int | None = None) -> None:
        """A request for the scheduler, which knows of it from `received_s` on.

        request: as `RequestMaker.one` makes it
        place: order among requests that arrive at the same time, its row by
            default.
        Raises ConfigError for a time before `now`.
        """
        if not received_s >= self.engine.now:
            raise ConfigError(
                f"received_s is {amount_text(received_s)}, but the engine's clock is at "
                f"{amount_text(self.engine.now)} s"
            )
        self.put(request, received_s, request.row if place is None else place)

    def put(self, request: Request, received_s: float, place: int) -> None:
        """As `submit`; a request that arrives before `now` is seen at the next check."""
        if self.inbox.put(request, received_s, place) and self.engine.under_way != NOTHING:
            self.engine.notice()

    @property
    def now(self) -> float:
        """When the current event, or the next one, begins."""
        return self.engine.now

    @property
    def next_time(self) -> float:
        """When the current event ends; the call starts it if it has not begun; inf if nothing is left.

        Requests refused or given up as it began end with it: if nothing else happens, `step` returns these now.
        """
        engine = self.engine
        until = engine.begin() if engine.under_way == NOTHING else engine.until
        return engine.now if until == inf and self._ended else until

    def step(self) -> list[Ended]:
        """End the current event, or the next one; returns the requests that ended with it.

        Raises ConfigError if nothing is left to do: see `next_time`.
        """
        if self.next_time == inf:
            raise ConfigError("the engine has nothing left to do until another request is submitted")
        if self.engine.until < inf:
            self.engine.finish()
        found, self._ended = self._ended, []
        return found

    def close(self) -> RunLog:
        """The log, complete with loads and switches, as in `run`; the engine must not be used afterwards."""
        if self.store is not None:
            self.log.loads.extend(self.store.loads)
        if self._weights is not None:
            self.log.switches.extend(self._weights.switches)
        close(self.log, self.engine.now, self._client.cutoff_s)
        return self.log

    def close_inbox(self) -> list[int]:
        """Rows of submitted requests that never reached the scheduler."""
        return self.inbox.left()

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self.engine.batch.alive

    @property
    def waiting(self) -> int:
        """Submitted requests that are not in the batch, including those on their way to the scheduler."""
        return self.engine.queue.size + len(self.inbox)

    def kv_blocks(self, at_s: float) -> int:
        """Blocks of the KV cache in use at a moment of the event under way."""
        engine = self.engine
        cache = engine.batch.cache
        used = cache.size - cache.available
        if engine.under_way == DECODE and at_s > engine.now:
            steps, seconds, _, _ = engine.jump
            used += engine.running.blocks_of(int(steps * min((at_s - engine.now) / seconds, 1.0)))
        return used

    def _note(self, row: int, at_s: float, answered: bool) -> None:
        self._ended.append(Ended(row, at_s, answered))
