"""A server under a closed loop: so many clients, each of which sends its next request when the last one is answered.

Steps follow each other as the engine's scheduler makes them: prompts that have arrived are admitted as far as a step's
tokens allow, beside the sequences that generate or ahead of them; a request that comes while a step runs waits for its
end. Between two events generation is alike, so all its steps are taken at once. Clock and queue are exact for the
prices they are given; preemption, prefix caching, adapters and arrivals of any other kind are not known here.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from graphsim.serving.prompt_pool import PromptPool


class StepTimes(Protocol):
    """What a server's steps take, in seconds, the engine's own time included."""

    def generation_s(self, sequences: int, context: float) -> float:
        """A step in which sequences of so many cached tokens, in the mean, get a token each."""

    def prompts_s(self, tokens: float, pairs: float, prompts: int, sequences: int, context: float) -> float:
        """A step with new tokens of prompts and causal query-key pairs of these, beside sequences that generate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """How a server fills its steps.

    chunk_tokens: tokens of a step at most; cuts_prompts: whether a prompt that is longer than what is left is cut there
        (it waits for the next step otherwise)
    mixes: whether prompts share their step with the sequences that generate; else these wait
    ahead: whether a step is planned while the one before it runs, so that a request waits for both
    receive_steps: steps of generation between two looks for new requests
    hold_steps: steps of generation for which prompts are held back, unless their tokens reach hold_share of the chunk
    places: sequences that run at once at most; cache_tokens: that their caches hold at most
    """

    chunk_tokens: float = 8192.0
    cuts_prompts: bool = True
    mixes: bool = True
    ahead: bool = False
    receive_steps: int = 1
    hold_steps: int = 0
    hold_share: float = 0.0
    places: float = float("inf")
    cache_tokens: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoad:
    """What clients ask: each sends one request at a time.

    clients: of them; input_tokens, output_tokens: of each request, in the order in which they are sent
    request_s, token_s: what a request is on its way to the scheduler and back, in all and per token of its prompt
    """

    clients: int
    input_tokens: np.ndarray[Any, Any]
    output_tokens: np.ndarray[Any, Any]
    request_s: float = 0.0
    token_s: float = 0.0


def uniform_lengths(
    clients: int, per_client: int, input_tokens: float, output_tokens: float, range_ratio: float, seed: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Lengths of requests drawn uniformly from range_ratio of the stated ones to all of them."""
    draw, count = np.random.default_rng(seed), clients * per_client
    inputs, outputs = (
        draw.integers(max(1, int(range_ratio * most)), max(1, int(most)) + 1, count)
        for most in (input_tokens, output_tokens)
    )
    return inputs, outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Requests in the order in which they were sent: seconds from the start, and gaps between tokens with their counts.

    steps_s: the length of each gap; steps_tokens: how many tokens came after such a gap
    """

    sent_s: np.ndarray[Any, Any]
    first_s: np.ndarray[Any, Any]
    finished_s: np.ndarray[Any, Any]
    input_tokens: np.ndarray[Any, Any]
    output_tokens: np.ndarray[Any, Any]
    gap_s: np.ndarray[Any, Any]
    gap_tokens: np.ndarray[Any, Any]

    @property
    def ttft_s(self) -> np.ndarray[Any, Any]:
        """Time to first token of each request."""
        return np.asarray(self.first_s - self.sent_s)

    @property
    def e2e_s(self) -> np.ndarray[Any, Any]:
        """Time to the last token of each request."""
        return np.asarray(self.finished_s - self.sent_s)

    @property
    def tpot_s(self) -> np.ndarray[Any, Any]:
        """Mean time per token after the first, of each request that has several."""
        several = self.output_tokens > 1
        return np.asarray((self.finished_s - self.first_s)[several] / (self.output_tokens[several] - 1))

    @property
    def duration_s(self) -> float:
        """Until the last answer."""
        return float(self.finished_s.max())


def closed_loop(
    steps: StepTimes, load: ClosedLoad, scheduling: Scheduling, prompts: PromptPool | None = None
) -> Answers:
    """Run all requests of a closed loop through one server.

    prompts: servers that run these; the server then only generates
    """
    server = _Server(steps=steps, load=load, scheduling=scheduling, prompts=prompts)
    server.run()
    gaps = np.array(server.gaps).reshape(-1, 2)
    return Answers(
        sent_s=server.sent, first_s=server.first, finished_s=server.finished, input_tokens=load.input_tokens,
        output_tokens=load.output_tokens, gap_s=gaps[:, 0], gap_tokens=gaps[:, 1],
    )  # fmt: skip


@dataclass(slots=True, kw_only=True, eq=False)
class _Server:
    """The state between two steps.

    step: count of generation so far; ends: of running sequences, the count at which each has all its tokens
    cached: tokens in the caches of these; seen: of waiting prompts, tokens that steps had already
    stalled, last_gap: how many sequences wait for prompts that run ahead of them, and since when
    """

    steps: StepTimes
    load: ClosedLoad
    scheduling: Scheduling
    prompts: PromptPool | None
    now: float = 0.0
    step: int = 0
    since_look: int = 0
    held: int = 0
    cached: float = 0.0
    next_request: int = 0
    arriving: list[tuple[float, int]] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)
    ends: list[tuple[int, int]] = field(default_factory=list)
    seen: dict[int, float] = field(default_factory=dict)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    sent: np.ndarray[Any, Any] = field(init=False)
    first: np.ndarray[Any, Any] = field(init=False)
    finished: np.ndarray[Any, Any] = field(init=False)
    stalled: int = 0
    last_gap: float = 0.0
    last_step_s: float = 0.0

    def __post_init__(self) -> None:
        self.sent, self.first, self.finished = (np.zeros(len(self.load.input_tokens)) for _ in range(3))
        for _ in range(min(self.load.clients, len(self.sent))):
            self._send()

    def run(self) -> None:
        while self.arriving or self.waiting or self.ends:
            self._receive()
            chunks = self._chunks() if self._admits() else []
            if chunks:
                self._run_prompts(chunks)
            else:
                self._generate()
            self._answer()

    def _send(self) -> None:
        request = self.next_request
        if request < len(self.sent):
            self.next_request += 1
            self.sent[request] = self.now
            tokens = float(self.load.input_tokens[request])
            arrives = self.now + self.load.request_s + self.load.token_s * tokens
            if self.prompts is not None:
                arrives = self.first[request] = self.prompts.done_s(arrives, tokens)
            heapq.heappush(self.arriving, (arrives, request))

    def _receive(self) -> None:
        """Look for requests that have arrived, where it is time to; wait for one where nothing else is to do."""
        if not self.waiting and not self.ends:
            self.now = max(self.now, self.arriving[0][0])
        elif self.ends and self.since_look < self.scheduling.receive_steps:
            return
        planned = self.now - self.last_step_s if self.scheduling.ahead and self.ends else self.now
        while self.arriving and self.arriving[0][0] <= planned:
            request = heapq.heappop(self.arriving)[1]
            if self.prompts is None:
                self.waiting.append(request)
            else:
                self._join(request)
        self.since_look = 0

    def _admits(self) -> bool:
        """Whether prompts wait, and are not held back until there are more of them."""
        if not self.waiting:
            return False
        if not self.ends or self.held >= self.scheduling.hold_steps:
            return True
        tokens = float(sum(self.load.input_tokens[request] for request in self.waiting))
        return tokens >= self.scheduling.hold_share * self.scheduling.chunk_tokens

    def _chunks(self) -> list[tuple[int, float, float]]:
        """Of waiting prompts, those that the next step takes: request, tokens seen before, new tokens."""
        plan = self.scheduling
        found: list[tuple[int, float, float]] = []
        budget = plan.chunk_tokens - (len(self.ends) if plan.mixes else 0)
        room = plan.cache_tokens - self.cached - sum(self.seen.values())
        places = plan.places - len(self.ends)
        for request in self.waiting:
            past, length = self.seen.get(request, 0.0), float(self.load.input_tokens[request])
            new = min(budget, length - past)
            alone = not self.ends and not found
            if new <= 0 or places < 1 or (not alone and length - past > room):
                break
            if not plan.cuts_prompts and past + new < length:
                if not alone:
                    break
                new = length - past
            found.append((request, past, new))
            budget, room, places = budget - new, room - (length - past), places - 1
        return found

    def _run_prompts(self, chunks: list[tuple[int, float, float]]) -> None:
        beside = len(self.ends) if self.scheduling.mixes else 0
        pairs = sum(new * past + 0.5 * new * (new + 1.0) for _, past, new in chunks)
        context = self.cached / beside if beside else 0.0
        tokens = sum(new for *_, new in chunks)
        step_s = self.steps.prompts_s(tokens, pairs, len(chunks), beside, context)
        self.now += step_s
        self.last_step_s = step_s
        self.held, self.since_look = 0, self.scheduling.receive_steps
        if beside:
            self._advance(1, step_s)
        elif self.ends:  # those that wait get their next token so much later
            self.stalled, self.last_gap = self.stalled or len(self.ends), self.last_gap + step_s
        for request, past, new in chunks:
            if past + new < self.load.input_tokens[request]:
                self.seen[request] = past + new
                continue
            self.seen.pop(request, None)
            self.waiting.remove(request)
            self.first[request] = self.now
            self._join(request)

    def _join(self, request: int) -> None:
        """A request generates from now on."""
        self.cached += float(self.load.input_tokens[request])
        heapq.heappush(self.ends, (self.step + int(self.load.output_tokens[request]) - 1, request))

    def _generate(self) -> None:
        """Steps of generation up to the next event."""
        if not self.ends:
            return
        count = max(1, self.ends[0][0] - self.step)
        if self.waiting:
            count = (
                max(1, min(count, self.scheduling.hold_steps - self.held))
                if self.held < self.scheduling.hold_steps
                else 1
            )
        elif self.arriving:
            count = min(count, max(1, self.scheduling.receive_steps - self.since_look))
        batch = len(self.ends)
        step_s = self.steps.generation_s(batch, self.cached / batch + 0.5 * count)
        if self.arriving and not self.waiting and self.scheduling.receive_steps == 1:
            until = (self.arriving[0][0] - self.now) / step_s + (1.0 if self.scheduling.ahead else 0.0)
            count = max(1, min(max(1, self.ends[0][0] - self.step), int(np.ceil(until))))
        self.now += count * step_s
        self.last_step_s = step_s
        self.held += count if self.waiting else 0
        self.since_look += count
        self._advance(count, step_s)

    def _advance(self, count: int, step_s: float) -> None:
        batch = len(self.ends)
        self.step += count
        self.cached += batch * count
        if self.last_gap:
            self.gaps += [(step_s + self.last_gap, self.stalled), (step_s, batch - self.stalled)]
            self.stalled, self.last_gap, count = 0, 0.0, count - 1
        if count:
            self.gaps.append((step_s, batch * count))

    def _answer(self) -> None:
        while self.ends and self.ends[0][0] <= self.step:
            request = heapq.heappop(self.ends)[1]
            self.cached -= float(self.load.input_tokens[request] + self.load.output_tokens[request] - 1)
            self.finished[request] = self.now
            self._send()
