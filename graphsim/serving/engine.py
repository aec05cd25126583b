"""One engine on a clock, one event at a time: a step with prompts, a run of identical decode steps, or a wait.

The cost of simulating a step does not depend on the number of running requests, which are counters (`Running`). While
no request arrives, ends or fails to get a block, a run of decode steps is one closed sum, exact as the step's price is
linear in the context between its nodes. `tests/serving/step_by_step.py` has the same rules as one look at every
request in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from math import inf

from graphsim.serving.arrivals import Arrivals
from graphsim.serving.batch import NOBODY_OVER, Step
from graphsim.serving.endings import Endings
from graphsim.serving.requests import Request
from graphsim.serving.run_log import RunLog
from graphsim.serving.running import seconds_of, steps_to
from graphsim.serving.scheduler import Scheduler
from graphsim.serving.step_price import DraftingPrice, StepPrice
from graphsim.traffic.table import BASE

ALIKE = 0.02
"""Share of the first step's time by which the steps of a run may be longer."""
NOTHING, WAIT, STEP, DECODE = range(4)
"""Kinds of the current event."""


class Engine:
    """`begin` decides on the next event, `finish` ends it; `notice` in between, if a request arrives before that.

    finish: of the current event
    now: the clock, at the start of the current event; until: its expected end
    seen: the scheduler has seen requests up to this time; since_look: steps since its last check
    waiting: requests in the queue when the last step began
    limited: whether anything other than arrivals ends a run of steps
    passes: whether skipping requests takes time
    drafts_until: until when the device drafts tokens, after those of the last step have left it; the next step begins
        then
    jump: of a run of steps under way: steps, seconds, of its last one, of its first one
    """

    def __init__(
        self, scheduler: Scheduler, endings: Endings, clients: Arrivals, price: StepPrice, log: RunLog, cutoff_s: float
    ) -> None:
        self.scheduler, self.endings, self.clients, self.price, self.log = scheduler, endings, clients, price, log
        self.rules, self.batch, self.gate = scheduler.rules, scheduler.batch, scheduler.gate
        self.running, self.queue = self.batch.running, self.batch.queue
        self.now = self.seen = 0.0
        self.until, self.under_way = inf, NOTHING
        self._ends = self._end_wait, self._end_step, self._end_decode
        self.finish: Callable[[], None] = self._end_wait
        self._requests, self._every = self.running.requests, self.rules.receive_steps
        self.cutoff_s = cutoff_s
        self.steps = self.waiting = 0
        self.limited = cutoff_s < inf or self.gate.looks or clients.expires
        self.passes = self.rules.adapters.skip_s > 0.0
        self.since_look = self.rules.receive_steps
        self._step, self._seconds = Step(), 0.0
        self._drafting = price if self.rules.drafted is not None and isinstance(price, DraftingPrice) else None
        self.drafts_until = self._behind_s = 0.0
        self._stuck = False
        self.jump = (0, 0.0, 0.0, 0.0)
        scheduler.computed_in(self._computes_s)

    def begin(self) -> float:
        """Decide on the next event, and return when it ends; inf: nothing, unless a request arrives.

        All requests that arrive up to now must have been submitted.
        """
        batch, clients = self.batch, self.clients
        requests, partials = self._requests, batch.partials
        while self.now < self.cutoff_s:
            alive = requests or partials
            if not alive:
                self.seen = self.now
            looks = not alive or self.since_look >= self._every
            if looks:
                self.since_look = 0
                if clients.next_s <= self.seen:
                    self.endings.receive(self.seen)
            if clients.expiring:
                self._abort(looks=looks)
            if not requests and not partials:
                if not self.queue.size:
                    return self._wait(stuck=False)
                batch.retry = True
            if self.gate.next_s <= self.now:
                batch.retry = True
            if not self.scheduler.needs_plan(self.steps):
                return self._decode()
            if self._plan():
                return self.until
        self.under_way, self.until = NOTHING, inf
        return inf

    def notice(self) -> None:
        """A request will arrive that was unknown when the current event began; the event may end earlier."""
        if self.under_way == WAIT:
            self._wait(stuck=self._stuck)
        elif self.under_way == DECODE:
            self._decode()

    def _wait(self, *, stuck: bool) -> float:
        """Wait until a request arrives or, if the waiting ones cannot run by themselves, something else changes."""
        self.under_way, self.finish, self._stuck = WAIT, self._ends[0], stuck
        until = min(self.clients.next_s, self._limit_s()) if stuck else self.clients.next_s
        self.until = inf if until == inf else max(self.now, min(until, self.cutoff_s))
        return self.until

    def _end_wait(self) -> None:
        self.under_way = NOTHING
        self.batch.ratio.restart(self.running.steps)
        self.now = self.seen = self.until

    def _limit_s(self) -> float:
        """When a client gives up, an adapter is ready or may run, or the run ends."""
        found = min(self.cutoff_s, self.clients.next_expiry())
        return min(found, self.gate.next_s) if self.queue.size else found

    def _abort(self, *, looks: bool) -> None:
        """Requests that clients gave up are aborted; their connections become free for others at once."""
        clients, endings = self.clients, self.endings
        while clients.next_expiry() <= self.now:
            endings.give_up(self.now)
            if looks and clients.next_s <= self.seen:
                endings.receive(self.seen)

    def _decode(self) -> float:
        """A run of similar decode steps until a request is seen to arrive, leaves, or fails to get a block."""
        running, batch = self.running, self.batch
        size, adapters = len(running.requests), batch.adapters
        computed = self.gate.beside(batch.used) if self.gate.weights is not None else adapters
        context = running.total - size
        most, limit_s = self._undisturbed()
        comes_s = self.clients.next_s - self.now
        begin, growth, valid = self.price.decode(size, context, computed)
        passing_s = self.scheduler.passing_s if self.passes else 0.0
        begin += passing_s
        if self._drafting is not None:
            begin += self._drafted_beside(self._drafting.behind_s(0, 0.0, 0, 0, size, context, computed))
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
        self.under_way, self.finish, self.jump = DECODE, self._ends[2], (steps, seconds, last, begin)
        self.until = self.now + seconds
        return self.until

    def _end_decode(self) -> None:
        self.under_way = NOTHING
        steps, seconds, last, begin = self.jump
        size, adapters, start = len(self.running.requests), self.batch.adapters, self.now
        if self.queue.size:
            self.scheduler.held += steps
        self._advance(steps, seconds, last)
        self._generate(start, steps, begin, seconds, size, NOBODY_OVER)
        self._note(start, seconds, steps, size, 0, 0, adapters, 0.0)

    def _undisturbed(self) -> tuple[int, float]:
        """Steps and seconds for which generation continues at most if no request arrives."""
        running, most = self.running, self.running.next_end() - self.running.steps
        if self.queue.size:
            most = min(most, self.scheduler.waits(self.steps) or most)
        available = self.batch.cache.available
        if len(running.requests) * (most // running.block_tokens + 1) > available:
            most = running.steps_with(available, most)
        return most, self._limit_s() - self.now if self.limited else inf

    def _to_look(self, steps: int) -> int:
        """Number of steps until the scheduler sees the requests that have arrived by now.

        Requests that have arrived but are not seen yet missed the last check.
        """
        every, since = self.rules.receive_steps, self.since_look + steps
        return every - since % every if self.rules.async_scheduling or not steps else -since % every

    def _plan(self) -> bool:
        """One step in which requests may join or be preempted, or a prompt continues.

        False if there was no step, and the next check is immediate; if nothing runs and no waiting request can be
        admitted, a wait begins.
        """
        step = self.scheduler.plan(self.now, self.steps)
        if not step.chunks and not step.batch:
            if self.batch.alive:
                return False
            self._wait(stuck=True)
            return True
        adapters = self.gate.beside(self.batch.used)
        if step.chunks:
            seconds = self._mixed_s(step, adapters)
        else:
            seconds = self.price.decode(step.batch, step.context, adapters)[0]
            if self.queue.size:
                self.scheduler.held += 1
        seconds = max(seconds, step.least_s) + step.stall_s
        if self.passes:
            seconds += self.scheduler.passing_s
        if self._drafting is not None:
            work = self._work(step)
            seconds += self._drafted_beside(self._drafting.behind_s(*work, step.batch, step.context, adapters))
        self.under_way, self.finish, self._step, self._seconds = STEP, self._ends[1], step, seconds
        self.until = self.now + seconds
        return True

    def _end_step(self) -> None:
        self.under_way = NOTHING
        step, seconds, batch = self._step, self._seconds, self.batch
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

    def _drafted_beside(self, behind_s: float) -> float:
        """By how much the step that begins now is longer than its price, from when one's tokens leave to the next.

        behind_s: what it drafts behind its own tokens, which the step after it waits for
        """
        self._behind_s = behind_s
        return max(self.drafts_until - self.now, 0.0) - behind_s

    def _mixed_s(self, step: Step, adapters: int) -> float:
        return self.price.mixed(*self._work(step), step.batch, step.context, adapters)

    def _work(self, step: Step) -> tuple[int, float, int, int]:
        """Of its prompts: new tokens, query-key pairs, how many prompts they are of, and how many of these end."""
        tokens = ending = 0
        pairs = 0.0
        for request, new in step.chunks:
            tokens += new
            pairs += new * (request.computed + (new + 1) / 2)
            ending += request.computed + new == request.tokens
        return tokens, pairs, len(step.chunks), ending

    def _computes_s(self, tokens: int, past: int, adapter: int) -> float:
        """Seconds to compute a prompt's tokens after a number of cached ones, in separate steps."""
        seconds, most = 0.0, self.rules.piece_tokens if self.rules.chunked else tokens
        adapters = int(adapter != BASE and self.rules.adapters.max_loras > 0)
        while tokens > 0:
            new = min(tokens, most)
            ends = int(new == tokens)
            seconds += self.price.mixed(new, new * (past + (new + 1) / 2), 1, ends, 0, 0, adapters)
            past, tokens = past + new, tokens - new
        return seconds

    def _advance(self, steps: int, seconds: float, last: float) -> None:
        """Advance the clock by this number of steps, the last of which takes `last` seconds."""
        self.waiting = self.queue.size
        self.steps += steps
        self.now += seconds
        self.seen = self.now - last if self.rules.async_scheduling else self.now
        self.drafts_until = self.now + self._behind_s

    def _generate(self, start: float, steps: int, first: float, seconds: float, size: int, over: Set[Request]) -> None:
        """Give sequences their tokens, and answer those that are complete."""
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
        """Append a row to the log (`StepRun`)."""
        cache = self.batch.cache
        blocks = cache.size - cache.available
        self.log.runs.append((start, seconds, steps, size, prompts, tokens, adapters, blocks, self.waiting, stall_s))
