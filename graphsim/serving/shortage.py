"""How those that run go on, and who gives up blocks or tokens where there are too few for all."""

from __future__ import annotations

from math import inf

from graphsim.serving.batch import Batch, Step
from graphsim.serving.requests import Request


class Continuation:
    """Running requests, before a step. piece: most tokens of one prompt in a step."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.rules = batch, batch.rules
        self.piece = self.rules.long_prefill_token_threshold or inf

    def all_at_once(self, step: Step) -> bool:
        """All that run go on, if tokens and blocks suffice for each of them; else nothing happens."""
        batch = self.batch
        need, running = batch.running.blocks_next, batch.running
        budget: float = self.rules.max_num_batched_tokens - len(running.requests) * running.width
        if not batch.partials:
            return need <= batch.cache.available and budget >= 0
        pieces: list[tuple[Request, int, int]] = []
        for request in batch.partials:
            if self.piece < inf and min(request.tokens - request.computed, self.piece) > budget:
                return False
            new, blocks = self.wants(request, budget)  # without an end of pieces there is one, the last of all
            if new > 0:
                pieces.append((request, new, blocks))
                need, budget = need + blocks, budget - new
        if need > batch.cache.available or budget < 0:
            return False
        for request, new, blocks in pieces:
            batch.give(request, new, blocks)
            step.chunks.append((request, new))
        return True

    def wants(self, request: Request, budget: float) -> tuple[int, int]:
        """Tokens that one of the running gets next, and the blocks that they take."""
        if request.generates:
            return self.batch.running.width, self.batch.running.blocks_wanted(request)
        new = int(min(request.tokens - request.computed, self.piece, budget))
        return new, -(-(request.computed + new) // self.rules.block_tokens) - request.blocks

    @property
    def takes_from_the_last(self) -> bool:
        """Whether it is always the last of the running that gives up its blocks, and pieces end with the step alone."""
        rules = self.rules
        return self.piece == inf and rules.shortage != "retract" and rules.policy != "priority"

    def from_the_last(self, step: Step, now: float) -> bool:
        """As `one_by_one`, where those that generate come first: only who gives up its blocks is examined.

        Returns whether a request was preempted.
        """
        batch, cache, running = self.batch, self.batch.cache, self.batch.running
        taken, preempted = 0, False
        while running.blocks_next - taken > cache.available:
            taken += cache.available  # by those before the first that finds none
            cache.available = 0
            batch.preempt(batch.partials[-1] if batch.partials else next(reversed(running.requests)), now)
            preempted = True
        for request in list(batch.partials):  # one at most
            budget = self.rules.max_num_batched_tokens - len(running.requests) * running.width
            new, blocks = self.wants(request, budget)
            cache.available -= running.blocks_next - taken
            taken = running.blocks_next
            if blocks > cache.available:
                batch.preempt(request, now)
                preempted = True
            elif new > 0:
                batch.give(request, new, blocks)
                step.chunks.append((request, new))
        cache.available += taken  # when the step is over
        if preempted:
            batch.estimate_again()
        return preempted

    def one_by_one(self, step: Step, now: float) -> bool:
        """Continue running requests in the order of admission; where blocks are short, others are preempted.

        Returns whether a request was preempted; who finds no tokens left, or had to give up its blocks for itself, ends
        the search, and `step.over` has those after it.
        """
        batch, cache = self.batch, self.batch.cache
        order = sorted([*batch.running.requests, *batch.partials], key=lambda request: request.order)
        budget: float = self.rules.max_num_batched_tokens
        planned: dict[Request, tuple[int, int]] = {}  # new tokens, and blocks of those that generate
        place, preempted = 0, False
        while place < len(order) and budget > 0:
            request = order[place]
            new, blocks = self.wants(request, budget)
            while blocks > cache.available:
                victim = self.victim(order)
                at = order.index(victim)
                del order[at]
                place -= at < place
                given = planned.pop(victim, (0, 0))
                batch.preempt(victim, now)
                budget, cache.available = budget + given[0], cache.available + given[1]
                preempted = True
                if victim is request:
                    break
            else:
                planned[request] = (new, blocks if request.generates else 0)
                if request.generates:
                    cache.available -= blocks
                else:
                    batch.give(request, new, blocks)
                budget, place = budget - new, place + 1
                continue
            break
        cache.available += sum(blocks for _, blocks in planned.values())  # taken when the step is over
        step.chunks += [(request, new) for request, (new, _) in planned.items() if not request.generates]
        step.over = {request for request in order if request.generates and request not in planned}
        if preempted:
            batch.estimate_again()
        return preempted

    def make_room(self, now: float, *, stuck: bool) -> None:
        """Requests give up their blocks until the others' next decode step finds those that it takes.

        stuck: whether prompts wait for blocks; where no request generates, one of them gives its own to the others
        """
        batch = self.batch
        running = batch.running
        if stuck and not running.requests:
            batch.preempt(self.victim(sorted(batch.partials, key=lambda request: request.order)), now)
            batch.estimate_again()
            return
        if running.blocks_next <= batch.cache.available:
            return
        while running.blocks_next > batch.cache.available:
            order = batch.partials if len(running) == 1 and batch.partials else running.requests
            batch.preempt(self.victim(sorted(order, key=lambda request: request.order)), now)
        batch.estimate_again()

    def victim(self, order: list[Request]) -> Request:
        """The request to preempt, of requests in the order of admission."""
        if self.rules.shortage == "retract":
            running = self.batch.running
            generating = [request for request in order if request.generates]
            if not generating:
                return min(order, key=lambda r: (r.generated, -r.inputs, -r.order))
            return min(generating, key=lambda r: (running.tokens(r) - r.inputs, -r.inputs, -r.order))
        if self.rules.policy == "priority":
            return max(order, key=lambda request: (request.priority, request.sent_s, request.row))
        return order[-1]
