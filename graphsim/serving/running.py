"""Requests that generate, as counters: what their next step needs and when one ends, without a look at each."""

from __future__ import annotations

import heapq
from math import ceil, inf, sqrt

from graphsim.serving.requests import Request
from graphsim.serving.reservation import RemainingTokens


class Running:
    """Requests that get a token in each decode step. steps: decode steps so far; total: tokens of all requests.

    width: tokens of each that a decode step computes
    """

    width = 1

    def __init__(self, block_tokens: int) -> None:
        self.steps = self.total = 0
        self.block_tokens = block_tokens
        self.requests: dict[Request, None] = {}
        self.takers = [0] * block_tokens  # requests by the step, modulo block_tokens, at which each takes a block
        self._ends: list[tuple[int, int, Request]] = []
        self._delayed: list[Request] = []  # by the next step, in which they take no block

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def cached(self) -> int:
        """Tokens that all of them have in the cache before the next step: all but the newest of each."""
        return self.total - len(self.requests)

    @property
    def blocks_next(self) -> int:
        """Blocks that the next step takes."""
        return self.takers[self.steps % self.block_tokens]

    def tokens(self, request: Request) -> int:
        """Tokens of one of these requests."""
        return self.steps - request.joined

    def takes_block(self, request: Request) -> bool:
        """Whether the next step of one of these needs a block."""
        return (request.joined + 1 - self.steps) % self.block_tokens == 0

    def blocks_wanted(self, request: Request) -> int:
        """Blocks that the next step takes for one of these."""
        return int(self.takes_block(request))

    def blocks_held(self, request: Request, cached: int) -> int:
        """Blocks of a request that has left with a number of tokens in the cache."""
        return -(-cached // self.block_tokens)

    def to_come(self) -> RemainingTokens:
        """What admissions by expected tokens go by."""
        return RemainingTokens()

    def join(self, request: Request) -> None:
        """A request whose prompt is computed, and which has a token more to get."""
        tokens = request.inputs + request.generated
        request.joined = self.steps - tokens
        request.end = self.steps + request.outputs - request.generated
        request.generates = True
        self.requests[request] = None
        self.takers[(request.joined + 1) % self.block_tokens] += 1
        self.total += tokens
        heapq.heappush(self._ends, (request.end, request.order, request))

    def leave(self, request: Request) -> int:
        """One of these stops; returns its tokens."""
        del self.requests[request]
        tokens = self.steps - request.joined
        request.generated = tokens - request.inputs
        request.generates = False
        self.takers[(request.joined + 1) % self.block_tokens] -= 1
        self.total -= tokens
        return tokens

    def delay(self, request: Request) -> None:
        """One of these gets no token in the next step, which still counts."""
        self.takers[(request.joined + 1) % self.block_tokens] -= 1
        request.joined += 1
        request.end += 1
        self._delayed.append(request)
        self.total -= 1
        heapq.heappush(self._ends, (request.end, request.order, request))

    def next_end(self) -> int:
        """The count of steps at which the next of them has all its tokens."""
        ends = self._ends
        while True:
            end, order, request = ends[0]
            if request.generates and request.order == order and request.end == end:
                return end
            heapq.heappop(ends)

    def ended(self) -> list[Request]:
        """Requests that have all their tokens now, in the order of admission."""
        ends = self._ends
        if not ends or ends[0][0] > self.steps:
            return []
        found = []
        while ends and ends[0][0] <= self.steps:
            end, order, request = heapq.heappop(ends)
            if request.generates and request.order == order and request.end == end:
                found.append(request)
        return found

    def blocks_of(self, steps: int) -> int:
        """Blocks that the next `steps` steps take."""
        size = self.block_tokens
        start = self.steps % size
        end = start + steps % size
        rest = sum(self.takers[start:end]) + (sum(self.takers[: end - size]) if end > size else 0)
        return len(self.requests) * (steps // size) + rest

    def steps_with(self, blocks: int, most: int) -> int:
        """How many of the next steps, `most` at most, find the blocks that they take."""
        batch, size = len(self.requests), self.block_tokens
        if batch * (most // size + 1) <= blocks:
            return most
        found = max(blocks // batch - 1, 0) * size  # in this many steps everybody takes one
        blocks -= found // size * batch
        while found < most and self.takers[(self.steps + found) % size] <= blocks:
            blocks -= self.takers[(self.steps + found) % size]
            found += 1
        return min(found, most)

    def advance(self, steps: int) -> int:
        """Each of them gets this number of tokens; returns the blocks that this takes."""
        blocks = self.blocks_of(steps) if steps > 1 else self.takers[self.steps % self.block_tokens]
        self.steps += steps
        self.total += len(self.requests) * steps
        if self._delayed:
            for request in self._delayed:
                self.takers[(request.joined + 1) % self.block_tokens] += 1
            self._delayed.clear()
        return blocks


def seconds_of(steps: int, first: float, growth: float) -> float:
    """Seconds of a number of steps that each take a constant amount longer than the one before."""
    return steps * first + growth * (steps * (steps - 1) / 2)


def steps_to(seconds: float, first: float, growth: float) -> int:
    """The fewest steps that take at least this number of seconds; one at least."""
    if seconds <= first:
        return 1
    if seconds == inf:
        return 1 << 60
    if growth == 0.0:
        steps = ceil(seconds / first)
    else:
        half = first - growth / 2
        root = half * half + 2 * growth * seconds
        if root < 0.0:
            return 1 << 60
        steps = max(1, ceil(2 * seconds / (half + sqrt(root))))
    while steps > 1 and seconds_of(steps - 1, first, growth) >= seconds:
        steps -= 1
    while seconds_of(steps, first, growth) < seconds:
        steps += 1
    return steps
