"""Requests whose tokens are drafted and verified: each gets a random number of tokens in each step."""

from __future__ import annotations

from graphsim.serving.requests import Request
from graphsim.serving.reservation import CLIPPED_TOKENS, RemainingTokens
from graphsim.serving.running import Running
from graphsim.speculation.acceptance import AcceptedDraws
from graphsim.speculation.drafted import Drafted


class Speculating(Running):
    """As `Running`, where a step may give a sequence several tokens, so that each is examined in every step.

    Ahead of a step, a sequence has blocks for the keys and values of its newest token and of all drafted ones
    (vLLM's lookahead slots, `v1/core/kv_cache_manager.py`, allocate_slots), except those after the last token of its
    answer. Blocks of rejected tokens stay with it. `end` is the count of steps as if one token came in each.
    """

    def __init__(self, block_tokens: int, drafted: Drafted) -> None:
        super().__init__(block_tokens)
        self.width = drafted.tokens + 1
        self._draws = AcceptedDraws(drafted.acceptance, drafted.tokens, drafted.seed)
        self._tokens: dict[Request, int] = {}
        self._needs: dict[Request, int] = {}
        self._over: set[Request] = set()
        self._blocks_next = 0
        self._ended: list[Request] = []

    @property
    def blocks_next(self) -> int:
        """Blocks that the next step takes."""
        return self._blocks_next

    def tokens(self, request: Request) -> int:
        """Tokens of one of these requests."""
        return self._tokens[request]

    def blocks_wanted(self, request: Request) -> int:
        """Blocks that one of these requests needs."""
        return 0 if request in self._over else self._needs.get(request, 0)

    def blocks_held(self, request: Request, cached: int) -> int:
        """Blocks of a request that has left, including those allocated ahead."""
        return max(request.blocks, -(-cached // self.block_tokens))

    def join(self, request: Request) -> None:
        """A request whose prompt is computed, and which has a token more to get."""
        request.generates = True
        self.requests[request] = None
        self._tokens[request] = tokens = request.inputs + request.generated
        request.end = self.steps + request.outputs - request.generated
        self.total += tokens
        rows = min(tokens - 1 + self.width, request.most_cached)
        needs = -(-rows // self.block_tokens) - request.blocks
        if needs > 0:
            self._needs[request] = needs
            self._blocks_next += needs

    def leave(self, request: Request) -> int:
        """One of these stops; returns its tokens."""
        del self.requests[request]
        tokens, needs = self._tokens.pop(request), self._needs.pop(request, 0)
        if request not in self._over:
            self._blocks_next -= needs
        self._over.discard(request)
        request.generated = tokens - request.inputs
        request.generates = False
        self.total -= tokens
        return tokens

    def delay(self, request: Request) -> None:
        """One of these gets no token in the next step, which still counts."""
        self._over.add(request)
        self._blocks_next -= self._needs.get(request, 0)
        request.end += 1

    def next_end(self) -> int:
        """The next step, since the number of tokens it yields is random."""
        return self.steps + 1

    def ended(self) -> list[Request]:
        """Requests that have all their tokens now, in the order of admission."""
        found, self._ended = sorted(self._ended, key=lambda request: request.order), []
        return found

    def blocks_of(self, steps: int) -> int:
        """Blocks that the next step takes; more steps are not known ahead."""
        return self._blocks_next if steps else 0

    def steps_with(self, blocks: int, most: int) -> int:
        """One step at most, if it finds the blocks that it takes."""
        return min(most, 1) if self._blocks_next <= blocks else 0

    def advance(self, steps: int) -> int:
        """Each of them gets the tokens of a verified step; returns the blocks that this took."""
        taken, over, size, ahead = self._blocks_next, self._over, self.block_tokens, self.width - 1
        self.steps += steps
        held, tokens, needs, now, total, blocks = self._needs, self._tokens, {}, self.steps, 0, 0
        for request, drawn in zip(self.requests, self._draws.several(len(self.requests)), strict=True):
            have, last = tokens[request], request.inputs + request.outputs
            if over and request in over:
                drawn = 0
            elif request in held:
                request.blocks += held[request]
            if have + drawn >= last:
                drawn = last - have
                if drawn:
                    self._ended.append(request)
            have += drawn
            total += drawn
            tokens[request] = have
            request.end = now + last - have
            rows = have + ahead if have + ahead < last else last - 1
            if rows > request.blocks * size:
                needs[request] = more = -(-rows // size) - request.blocks
                blocks += more
        over.clear()
        self.total += total
        self._needs, self._blocks_next = needs, blocks
        return taken

    def to_come(self) -> RemainingTokens:
        """What admissions by expected tokens go by."""
        return TokensLeft(self)


class TokensLeft(RemainingTokens):
    """As `TokensToCome`, of sequences that do not get a token in each step."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running

    def add(self, request: Request, steps: int) -> None:
        """Add a running request."""

    def remove(self, request: Request) -> None:
        """Remove a request that no longer runs."""

    def total(self, steps: int) -> int:
        """Tokens left for all running requests."""
        return sum(min(request.end - steps, CLIPPED_TOKENS) for request in self._running.requests)
