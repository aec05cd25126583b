"""One engine, its requests and adapters on a clock.

The work of a step does not depend on how many requests run: they are counters (`Running`). While nobody comes, goes or
fails to get a block, a run of decode steps is one closed sum, exact as the step's price is linear in the context
between its nodes. `tests/serving/step_by_step.py` has the same rules as one look at every request in every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from math import inf

import numpy as np

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.batch import NOBODY_OVER, Step
from graphsim.serving.clients import Clients
from graphsim.serving.endings import Endings
from graphsim.serving.front import Front
from graphsim.serving.requests import Request, RequestMaker
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import STATUSES, UNFINISHED, RunLog, empty_log
from graphsim.serving.running import seconds_of, steps_to
from graphsim.serving.scheduler import Scheduler
from graphsim.serving.step_price import StepPrice
from graphsim.serving.table_checks import check_table
from graphsim.serving.weights import Weights
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable

Progress = Callable[[float, int], None]
PROGRESS_S = 0.1
ALIKE = 0.02
"""By how much of the first one's time the steps of a run may be longer."""
PATIENT, AT_ONCE = Client(), Front()


def run(
    table: RequestTable, rules: Rules, price: StepPrice, *, client: Client = PATIENT, concurrency: int | None = None,
    front: Front = AT_ONCE, store: AdapterStore | None = None, weights: Weights | None = None,
    progress: Progress | None = None,
) -> RunLog:  # fmt: skip
    """Serve the requests of a table with one engine.

    client: its connections, patience and end of the run; front: the way through the server's front end
    concurrency: requests in flight at most (closed loop): rows without a time are sent when another is answered; a
        session counts as one until its last answer
    store: where adapters are; without it each has its place and no load takes time
    weights: a strategy that merges adapters into the weights; by default all are computed beside them
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
    engine = _Engine(scheduler, Endings(scheduler, clients, client, log), clients, price, log)
    try:
        engine.run(client.cutoff_s, progress)
    except KeyboardInterrupt:
        log.interrupted = True
    if store is not None:
        log.loads.extend(store.loads)
    if weights is not None:
        log.switches.extend(weights.switches)
    _close(log, engine.now, client.cutoff_s)
    return log


def _close(log: RunLog, now: float, cutoff_s: float) -> None:
    """What ended behind the cut-off has not ended."""
    log.end_s = min(now, cutoff_s)
    late = log.finished_s > cutoff_s
    log.status[late] = STATUSES.index(UNFINISHED)
    log.finished_s[late] = np.nan
    log.first_token_s[log.first_token_s > cutoff_s] = np.nan


class _Engine:
    """The loop.

    seen: the scheduler knows who came until then; since_look: steps since it last looked for them
    waiting: requests in the queue when the last step began
    limited: whether anything but what clients send ends a run of steps
    passes: whether passing over requests takes time
    """

    def __init__(self, scheduler: Scheduler, endings: Endings, clients: Clients, price: StepPrice, log: RunLog) -> None:
        self.scheduler, self.endings, self.clients, self.price, self.log = scheduler, endings, clients, price, log
        self.rules, self.batch, self.gate = scheduler.rules, scheduler.batch, scheduler.gate
        self.running, self.queue = self.batch.running, self.batch.queue
        self.now = self.seen = self.cutoff_s = 0.0
        self.steps = self.waiting = 0
        self.limited, self.passes = True, self.rules.adapters.skip_s > 0.0
        self.since_look = self.rules.receive_steps

    def run(self, cutoff_s: float, progress: Progress | None) -> None:
        """Until all is answered, or the cut-off."""
        scheduler, batch, clients, queue = self.scheduler, self.batch, self.clients, self.queue
        requests, partials, every = self.running.requests, batch.partials, self.rules.receive_steps
        self.cutoff_s = cutoff_s
        self.limited = cutoff_s < inf or self.gate.looks or clients.expires
        shown = time.perf_counter()
        while self.now < cutoff_s:
            alive = requests or partials
            if not alive:
                self.seen = self.now
            looks = not alive or self.since_look >= every
            if looks:
                self.since_look = 0
                if clients.next_s <= self.seen:
                    self.endings.receive(self.seen)
            if clients.expiring:
                self._abort(looks=looks)
            if not requests and not partials:
                if not queue.size:
                    if clients.next_s == inf:
                        return
                    self._idle(clients.next_s)
                    continue
                batch.retry = True
            if self.gate.next_s <= self.now:
                batch.retry = True
            if not scheduler.needs_plan(self.steps):
                self._decode()
            elif not self._plan():
                return
            if progress is not None and time.perf_counter() - shown > PROGRESS_S:
                progress(self.now, self.endings.count + clients.refused)
                shown = time.perf_counter()

    def _idle(self, until: float) -> None:
        """Nothing runs until then."""
        self.batch.ratio.restart(self.running.steps)
        self.now = self.seen = max(self.now, min(until, self.cutoff_s))

    def _limit_s(self) -> float:
        """When a client gives up a request, an adapter is ready or may run, or all is over."""
        found = min(self.cutoff_s, self.clients.next_expiry())
        return min(found, self.gate.next_s) if self.queue.size else found

    def _abort(self, *, looks: bool) -> None:
        """Requests that clients gave up are aborted; over their connections others may come at once."""
        clients, endings = self.clients, self.endings
        while clients.next_expiry() <= self.now:
            endings.give_up(self.now)
            if looks and clients.next_s <= self.seen:
                endings.receive(self.seen)

    def _decode(self) -> None:
        """Steps of generation until somebody is seen to come, goes, or fails to get a block, while they are alike."""
        running, batch = self.running, self.batch
        size, adapters = len(running.requests), batch.adapters
        computed = self.gate.beside(batch.used) if self.gate.weights is not None else adapters
        context = running.total - size
        most, limit_s = self._undisturbed()
        comes_s = self.clients.next_s - self.now
        begin, growth, valid = self.price.decode(size, context, computed)
        passing_s = self.scheduler.passing_s if self.passes else 0.0
        begin += passing_s
        first, longest, steps, seconds = begin, begin * (1.0 + ALIKE), 0, 0.0
        while True:
            if seconds >= comes_s:
                most, comes_s = min(most, steps + self._to_look(steps)), inf
                if steps >= most:
                    break
            some, until_s = min(most - steps, valid), min(comes_s, limit_s)
            if growth * some > longest - first:
                some = int((longest - first) / growth) + 1
            if some > 1 and until_s < inf:
                some = min(some, steps_to(until_s - seconds, first, growth))
            steps += some
            seconds += first if some == 1 else seconds_of(some, first, growth)
            last = first + growth * (some - 1)
            if steps >= most or seconds >= limit_s or last + growth > longest:
                break
            first, growth, valid = self.price.decode(size, context + size * steps, computed)
            first += passing_s
        if self.queue.size:
            self.scheduler.held += steps
        start = self.now
        self._advance(steps, seconds, last)
        self._generate(start, steps, begin, seconds, size, NOBODY_OVER)
        self._note(start, seconds, steps, size, 0, 0, adapters, 0.0)

    def _undisturbed(self) -> tuple[int, float]:
        """Steps and seconds for which generation goes on at most if nobody comes."""
        running, most = self.running, self.running.next_end() - self.running.steps
        if self.queue.size:
            most = min(most, self.scheduler.waits(self.steps) or most)
        available = self.batch.cache.available
        if len(running.requests) * (most // running.block_tokens + 1) > available:
            most = running.steps_with(available, most)
        return most, self._limit_s() - self.now if self.limited else inf

    def _to_look(self, steps: int) -> int:
        """From so many steps on, those until one has ended after which the scheduler sees who had come by then.

        Who has come by now and is not seen yet missed the look just taken.
        """
        every, since = self.rules.receive_steps, self.since_look + steps
        return every - since % every if self.rules.async_scheduling or not steps else -since % every

    def _plan(self) -> bool:
        """One step in which somebody may come, be preempted, or a prompt goes on.

        False where nothing runs, nobody comes, and what waits never gets in.
        """
        step = self.scheduler.plan(self.now, self.steps)
        if not step.chunks and not step.batch:
            if not self.batch.alive:
                following = min(self.clients.next_s, self._limit_s())
                if following == inf:
                    return False
                self._idle(following)
            return True
        batch = self.batch
        adapters = self.gate.beside(batch.used)
        if step.chunks:
            seconds = self._mixed_s(step, adapters)
        else:
            seconds = self.price.decode(step.batch, step.context, adapters)[0]
            if self.queue.size:
                self.scheduler.held += 1
        seconds += step.stall_s
        if self.passes:
            seconds += self.scheduler.passing_s
        start, adapters = self.now, batch.adapters
        self._advance(1, seconds, seconds)
        if step.over:
            batch.gaps.pass_over(start, step.over)
        if step.batch:
            self._generate(start, 1, seconds, seconds, step.batch, step.over)
        else:
            batch.gaps.pause(start, len(self.running.requests))
        tokens = 0
        if step.chunks:
            tokens = self.endings.compute(step.chunks, self.now)
            self.since_look = self.rules.receive_steps
        self._note(start, seconds, 1, step.batch, len(step.chunks), tokens, adapters, step.stall_s)
        return True

    def _mixed_s(self, step: Step, adapters: int) -> float:
        tokens = ending = 0
        pairs = 0.0
        for request, new in step.chunks:
            tokens += new
            pairs += new * (request.computed + (new + 1) / 2)
            ending += request.computed + new == request.tokens
        return self.price.mixed(tokens, pairs, len(step.chunks), ending, step.batch, step.context, adapters)

    def _advance(self, steps: int, seconds: float, last: float) -> None:
        """The clock goes on by so many steps, the last of which takes so long."""
        self.waiting = self.queue.size
        self.steps += steps
        self.now += seconds
        self.seen = self.now - last if self.rules.async_scheduling else self.now

    def _generate(self, start: float, steps: int, first: float, seconds: float, size: int, over: Set[Request]) -> None:
        """Sequences have got their tokens, and those that have all of them are answered."""
        batch, every = self.batch, self.rules.receive_steps
        batch.gaps.steps(start, first, seconds, steps, size, over)
        batch.advance(steps, self.now)
        self.since_look = every if every == 1 else (self.since_look + steps - 1) % every + 1
        for request in self.running.ended():
            batch.release(request, self.now)
            self.endings.answer(request, self.now)

    def _note(
        self,
        start: float,
        seconds: float,
        steps: int,
        size: int,
        prompts: int,
        tokens: int,
        adapters: int,
        stall_s: float,
    ) -> None:
        """A row of the log (`StepRun`)."""
        cache = self.batch.cache
        blocks = cache.size - cache.available
        self.log.runs.append((start, seconds, steps, size, prompts, tokens, adapters, blocks, self.waiting, stall_s))
