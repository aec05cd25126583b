"""A decode worker, which generates from keys and values that others have computed."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.batch import Step
from graphsim.serving.disaggregated.door import Door, Starts
from graphsim.serving.disaggregated.hand_off import HandOff
from graphsim.serving.disaggregated.transferred import JOINED, TransferredRequest
from graphsim.serving.endings import Endings
from graphsim.serving.engine import NOTHING, Engine
from graphsim.serving.inbox import Inbox
from graphsim.serving.requests import Request
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import TIMED_OUT, RunLog
from graphsim.serving.scheduler import Scheduler
from graphsim.serving.shortage import Continuation
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.client import Client

Tell = Callable[[int, float, bool], None]


class DecodeWorker:
    """An engine whose requests arrive with computed prompts.

    requests: number of unfinished requests sent here, as counted by the sender
    starts: called for each request that has blocks, so that its transfer may begin. tell: called for each request that
        ended
    """

    def __init__(
        self, rules: Rules, price: StepPrice, log: RunLog, hand_off: HandOff, *, client: Client, reply_s: float,
        store: AdapterStore | None, starts: Starts, tell: Tell,
    ) -> None:  # fmt: skip
        self.log, self.store, self.requests = log, store, 0
        self.inbox = _Inbox(log, tell, timeout_s=client.timeout_s, reply_s=reply_s + client.reply_s)
        self.scheduler = _Scheduler(rules, store, log)
        self.door = Door(self.scheduler.batch, self.scheduler.gate, hand_off, starts)
        self.scheduler.door = self.door
        self.endings = _Endings(self.scheduler, self.inbox, client, log, self.door, hand_off)
        self.engine = _Engine(self.scheduler, self.endings, self.inbox, price, log, client.cutoff_s)
        self.endings.engine = self.engine

    def put(self, request: TransferredRequest, at_s: float) -> None:
        """Queue a request that asks for blocks from then on, or whose keys and values have arrived by then."""
        if self.inbox.put(request, at_s, request.row) and self.engine.under_way != NOTHING:
            self.engine.notice()

    @property
    def next_time(self) -> float:
        """When the current event ends; the call starts it if it has not begun."""
        return self.engine.begin() if self.engine.under_way == NOTHING else self.engine.until

    def ends_by(self, at_s: float) -> bool:
        """Whether the current event ends by then."""
        return self.engine.under_way != NOTHING and self.engine.until <= at_s

    def step(self) -> None:
        """End the current event; freed resources go to waiting requests."""
        self.engine.finish()
        self.endings.open_door(self.engine.now)


class _Inbox(Inbox):
    """Requests arrive twice: to request blocks, and with their keys and values. wakes_s: when to check without new
    requests.
    """

    wakes_s = inf

    def wake(self, at_s: float) -> None:
        """The time of the next check, even without new requests."""
        self.wakes_s = min(self.wakes_s, at_s)
        self.next_s = min(self.next_s, at_s)

    def receive(self, until: float) -> list[Request]:
        found = super().receive(until)
        if self.wakes_s <= until:
            self.wakes_s = inf
        self.next_s = min(self.next_s, self.wakes_s)
        return found

    def waits_for(self, request: Request) -> None:
        if isinstance(request, TransferredRequest) and not request.awaited:
            request.awaited = True
            super().waits_for(request)


class _Endings(Endings):
    """New requests go to the admission queue, which is processed at once."""

    engine: Engine

    def __init__(
        self, scheduler: Scheduler, clients: _Inbox, client: Client, log: RunLog, door: Door, hand_off: HandOff
    ) -> None:
        super().__init__(scheduler, clients, client, log)
        self._door, self._hand_off, self._handing = door, hand_off, clients

    def receive(self, until: float) -> None:
        for request in self._handing.receive(until):
            if isinstance(request, TransferredRequest):
                self._door.put(request)
        self.open_door(self.engine.now)

    def open_door(self, now: float) -> None:
        """A request that joins computes the last token of its prompt again, or already has its first token."""
        batch, freed = self._batch, True
        while freed:
            freed = False
            for request in self._door.open(now):
                batch.cache.share(request, request.inputs // batch.rules.block_tokens)
                if self._hand_off.repeats_last:
                    batch.partials.append(request)
                else:
                    self.compute([(request, 1)], now)
                    freed = freed or request.over  # its first token was its last one
        wakes_s = self._door.wakes_s
        if self._handing.expires and len(self._door):
            wakes_s = min(wakes_s, self._handing.next_expiry())
        if now < wakes_s < inf:
            self._handing.wake(wakes_s)

    def give_up(self, now: float) -> None:
        request = self._handing.expiring[0][2]
        if not isinstance(request, TransferredRequest) or request.state == JOINED:
            super().give_up(now)
        else:
            at, _, _ = self._handing.pop_expiring()
            self._door.give_up(request)
            self._end(request, TIMED_OUT)
            self._handing.ended(request.row, at, answered=False)
        self.open_door(now)


class _Continuation(Continuation):
    """Several requests may compute their last prompt tokens at a time, while an engine has one split prompt."""

    @property
    def takes_from_the_last(self) -> bool:
        return len(self.batch.partials) <= 1 and super().takes_from_the_last


class _Scheduler(Scheduler):
    """A step with a request whose adapter has to be loaded waits for it."""

    door: Door

    def __init__(self, rules: Rules, store: AdapterStore | None, log: RunLog) -> None:
        super().__init__(rules, store, log)
        self._going_on = _Continuation(self.batch)

    def needs_plan(self, steps: int) -> bool:
        return self.door.stall_s > 0.0 or super().needs_plan(steps)

    def plan(self, now: float, steps: int) -> Step:
        step = super().plan(now, steps)
        if step.chunks or step.batch:
            step.stall_s += self.door.stall_s
            self.door.stall_s = 0.0
        return step


class _Engine(Engine):
    """The last token of a prompt whose other keys and values have arrived is a row of the batch like any other.

    If blocks reserved for pending transfers leave too few for the only running request, it is preempted, and the queue
    is examined again.
    """

    _evicted = 0

    def _wait(self, *, stuck: bool) -> float:
        until = super()._wait(stuck=stuck)
        if stuck and len(self.log.evicted) > self._evicted:
            self._evicted = len(self.log.evicted)
            self.until = until = self.now
        return until

    def _mixed_s(self, step: Step, adapters: int) -> float:
        single = [request for request, new in step.chunks if new == 1 and isinstance(request, TransferredRequest)]
        if len(single) < len(step.chunks):
            return super()._mixed_s(step, adapters)
        context = step.context + sum(request.computed for request in single)
        return self.price.decode(step.batch + len(single), context, adapters)[0]
