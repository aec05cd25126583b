"""How requests enter an engine, complete their prompts, and end."""

from __future__ import annotations

from graphsim.serving.arrivals import Arrivals
from graphsim.serving.requests import Request
from graphsim.serving.rows import plain
from graphsim.serving.run_log import FINISHED, STATUSES, TIMED_OUT, TOO_LONG, RunLog
from graphsim.serving.scheduler import Scheduler
from graphsim.traffic.client import Client

ANSWERED = STATUSES.index(FINISHED)


class Endings:
    """Handles what happens between the clients and the batch. count: requests that have ended."""

    def __init__(self, scheduler: Scheduler, clients: Arrivals, client: Client, log: RunLog) -> None:
        self._scheduler, self._batch, self._clients, self._log = scheduler, scheduler.batch, clients, log
        self._timeout_s, self._reply_s = client.timeout_s, clients.reply_s
        self._first_token_s, self._finished_s = plain(log.first_token_s), plain(log.finished_s)
        self._status = plain(log.status)
        self._pauses = scheduler.rules.order == "prefill_first"
        self.count = 0

    def receive(self, until: float) -> None:
        """Add requests that arrive until then to the queue, except those that are too large for the engine."""
        batch, rules, gate = self._batch, self._scheduler.rules, self._scheduler.gate
        for request in self._clients.receive(until):
            blocks = rules.kv_blocks - gate.blocks(request, ()) if gate.pages else rules.kv_blocks
            if request.inputs + request.outputs > rules.max_model_len or (
                request.most_cached > blocks * rules.block_tokens
            ):
                self._end(request, TOO_LONG)
                received = float(self._log.received_s[request.row])
                self._clients.ended(request.row, received + self._reply_s, answered=False)
            else:
                batch.queue.append(request)
                batch.retry = True

    def give_up(self, now: float) -> None:
        """The first client to lose patience closes its connection, and the engine aborts the request."""
        batch = self._batch
        at, _, request = self._clients.pop_expiring()
        if request.generates:
            batch.gaps.leaves(now, request)
            batch.release(request, now)
        elif request in batch.partials:
            batch.release(request, now)
        else:
            request.over = True
            batch.queue.lose(request)
            batch.retry = True
        self._end(request, TIMED_OUT)
        self._clients.ended(request.row, at, answered=False)

    def compute(self, chunks: list[tuple[Request, int]], now: float) -> int:
        """Advance the prompts of a step; returns their new tokens.

        The end of a prompt yields a token: the first one of all, or the next one after a preemption.
        """
        batch, tokens, first_token_s = self._batch, 0, self._first_token_s
        for request, new in chunks:
            tokens += new
            request.computed += new
            if request.computed < request.inputs + request.generated:
                if request not in batch.partials:
                    batch.partials.append(request)
                continue
            if batch.partials and request in batch.partials:
                batch.partials.remove(request)
            if not request.generated:
                first_token_s[request.row] = now + self._reply_s
            request.generated += 1
            batch.gaps.token(now, request)
            if request.generated == request.outputs:
                batch.release(request, now)
                self.answer(request, now)
            else:
                batch.prompt_done(request)
                if self._pauses:
                    batch.gaps.join_paused(now)
        return tokens

    def answer(self, request: Request, now: float) -> None:
        """The last token is generated, possibly too late for the client."""
        at = now + self._reply_s
        if at > request.sent_s + self._timeout_s:
            self._end(request, TIMED_OUT)
            self._clients.ended(request.row, request.sent_s + self._timeout_s, answered=False)
            return
        request.over = True
        self.count += 1
        self._status[request.row] = ANSWERED
        self._finished_s[request.row] = at
        if self._clients.listen:
            self._clients.ended(request.row, at, answered=True)

    def _end(self, request: Request, status: str) -> None:
        request.over = True
        self._log.status[request.row] = STATUSES.index(status)
        self.count += 1
