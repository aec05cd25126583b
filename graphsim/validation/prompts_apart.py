"""A closed loop whose prompts run on servers of their own (disaggregated serving).

The first prompt server that is free computes a request's prompt and gives its first token; the servers that generate
share the sequences evenly and step together. Their steps between two events are one closed sum, as in
`graphsim.serving.loop`. Caches have room for all and take no time on their way from one server to the other.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from graphsim.serving.front import Front
from graphsim.serving.run_log import FINISHED, STATUSES, RunLog, empty_log
from graphsim.serving.running import seconds_of, steps_to
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.table import RequestTable


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptServers:
    """Servers that run one prompt at a time each, at the price of their steps."""

    count: int
    price: StepPrice

    def prompt_s(self, tokens: int) -> float:
        """Seconds of one prompt."""
        return self.price.mixed(tokens, tokens * (tokens + 1) / 2, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generators:
    """Servers that generate.

    ahead: whether a step is planned while the one before it runs, so that a request waits for both
    receive_steps: steps between two looks for new requests
    """

    count: int
    price: StepPrice
    ahead: bool = False
    receive_steps: int = 1

    def step(self, sequences: int, cached: int) -> tuple[float, float, int]:
        """As `StepPrice.decode`, of the server that has most; cached: tokens in the caches of all."""
        share = -(-sequences // self.count)
        return self.price.decode(share, round(cached * share / sequences), 0)


def run_apart(
    table: RequestTable, clients: int, prompts: PromptServers, generators: Generators, front: Front
) -> RunLog:  # fmt: skip
    """All requests of a table, each sent when one of so many clients has the answer to its last."""
    loop = _Loop(table, prompts, generators, front)
    loop.run(clients)
    return loop.log


class _Loop:
    """The state between two steps.

    steps: of generation so far; ends: of running sequences, the count at which each has all its tokens
    cached: tokens in their caches; arriving: requests with the times of their first tokens
    """

    def __init__(self, table: RequestTable, prompts: PromptServers, generators: Generators, front: Front) -> None:
        self.inputs, self.outputs = table.input_tokens.tolist(), table.output_tokens.tolist()
        self.prompts, self.generators, self.front = prompts, generators, front
        self.log = empty_log(len(table))
        self.now = self.last_step_s = 0.0
        self.steps = self.since_look = self.cached = self.sent = 0
        self.free = [0.0] * prompts.count
        self.arriving: list[tuple[float, int]] = []
        self.ends: list[tuple[int, int]] = []

    def run(self, clients: int) -> None:
        """Until all is answered."""
        for _ in range(clients):
            self._send(0.0)
        while self.arriving or self.ends:
            self._receive()
            if self.ends:
                self._generate()
        self.log.end_s = self.now

    def _send(self, now: float) -> None:
        """The next request, whose prompt is run at once or when a server is free."""
        request = self.sent
        if request == len(self.inputs):
            return
        self.sent += 1
        tokens = self.inputs[request]
        received = now + self.front.request_s + self.front.token_s * tokens
        done = max(self.free[0], received) + self.prompts.prompt_s(tokens)
        heapq.heapreplace(self.free, done)
        self.log.sent_s[request], self.log.received_s[request] = now, received
        self.log.admitted_s[request], self.log.first_token_s[request] = received, done
        heapq.heappush(self.arriving, (done, request))

    def _receive(self) -> None:
        """Look for requests that have arrived where it is time to; wait for one where nothing else is to be done."""
        if not self.ends:
            self.now = max(self.now, self.arriving[0][0])
        elif self.since_look < self.generators.receive_steps:
            return
        seen = self.now - self.last_step_s if self.generators.ahead and self.ends else self.now
        while self.arriving and self.arriving[0][0] <= seen:
            done, request = heapq.heappop(self.arriving)
            if self.outputs[request] == 1:
                self._answer(request, done)
            else:
                self.cached += self.inputs[request]
                heapq.heappush(self.ends, (self.steps + self.outputs[request] - 1, request))
        self.since_look = 0

    def _generate(self) -> None:
        """Steps up to the next event."""
        batch, every = len(self.ends), self.generators.receive_steps
        first, growth, valid = self.generators.step(batch, self.cached)
        steps = min(self.ends[0][0] - self.steps, valid)
        if self.arriving:
            heard = steps_to(self.arriving[0][0] - self.now, first, growth)
            steps = min(steps, -(-(self.since_look + heard) // every) * every - self.since_look)
        seconds = seconds_of(steps, first, growth)
        self.now += seconds
        self.last_step_s = first + growth * (steps - 1)
        self.steps += steps
        self.since_look = (self.since_look + steps - 1) % every + 1
        self.cached += batch * steps
        self.log.gaps.append((seconds / steps, batch * steps))
        while self.ends and self.ends[0][0] <= self.steps:
            request = heapq.heappop(self.ends)[1]
            self.cached -= self.inputs[request] + self.outputs[request] - 1
            self._answer(request, self.now)

    def _answer(self, request: int, now: float) -> None:
        self.log.finished_s[request] = now
        self.log.status[request] = STATUSES.index(FINISHED)
        self._send(now)
