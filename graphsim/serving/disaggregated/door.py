"""Admission to a decode worker: blocks for a prompt before its keys and values arrive, then a place in the batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from graphsim.serving.adapter_gate import AdapterGate
from graphsim.serving.batch import Batch
from graphsim.serving.disaggregated.hand_off import HandOff
from graphsim.serving.disaggregated.transferred import ASKS, JOINED, LOADS, READY, TransferredRequest

Starts = Callable[[TransferredRequest, float, int], float]
"""Called for a request that has blocks, with the time and the tokens of its prompt in the worker's own cache.

Returns when its keys and values arrive, if known, else inf.
"""


class Door:
    """Requests that were handed over and do not run yet, processed between two events of the worker's engine. Blocks
    are allocated in order of request, and the first that finds none ends the search, as in vLLM's scheduler and
    SGLang's DecodePreallocQueue. Places count as well: keys and values arrive only for requests that can run then.

    stall_s: seconds that the next step waits for adapters of requests that joined
    wakes_s: time of the next check even if no request arrives or leaves, as an adapter will be loaded
    """

    def __init__(self, batch: Batch, gate: AdapterGate, hand_off: HandOff, starts: Starts) -> None:
        self.batch, self.gate, self.hand_off = batch, gate, hand_off
        self._starts = starts
        self.asking: deque[TransferredRequest] = deque()
        self.ready: deque[TransferredRequest] = deque()
        self.loading = 0
        self.stall_s, self.wakes_s = 0.0, inf

    def __len__(self) -> int:
        return len(self.asking) + self.loading + len(self.ready)

    def put(self, request: TransferredRequest) -> None:
        """Queue a request that needs blocks, or whose keys and values have arrived."""
        if request.state == LOADS:
            self.loading -= 1
            if request.over:
                self._give_back(request)
                return
            request.state = READY
            self.ready.append(request)
        else:
            self.asking.append(request)

    def open(self, now: float) -> list[TransferredRequest]:
        """Allocate blocks for waiting requests as far as possible; returns the requests whose keys and values have
        arrived and that now run.
        """
        while self.asking:
            request = self.asking[0]
            if request.over:
                self.asking.popleft()
            elif not self._reserve(request, now):
                break
            else:
                self.asking.popleft()
        return self._join(now) if self.ready else []

    def _reserve(self, request: TransferredRequest, now: float) -> bool:
        """Allocate blocks for a whole prompt, if there are enough."""
        batch, rules = self.batch, self.batch.rules
        if batch.alive + self.loading + len(self.ready) >= rules.max_num_seqs:
            return False
        size, cache = rules.block_tokens, batch.cache
        found, idle = cache.hit(request, (request.inputs - 1) // size)
        missing = -(-request.inputs // size) - found
        free = cache.available - idle
        if self.gate.pages:
            free -= self.gate.blocks(request, batch.used)
        if not self._fits(request, missing, found, free):
            return False
        cache.take(request, found)
        cache.give(request, missing)
        batch.promise(request)
        if self._starts(request, now, found * size) <= now:
            request.state = READY
            self.ready.append(request)
        else:
            request.state = LOADS
            self.loading += 1
        return True

    def _fits(self, request: TransferredRequest, missing: int, found: int, free: int) -> bool:
        """Whether there is room for a prompt in addition to the blocks that present requests may still take."""
        batch, rules, size = self.batch, self.batch.rules, self.batch.rules.block_tokens
        here = batch.alive + self.loading + len(self.ready)
        if rules.admission == "no_evict":
            return -(-request.most_cached // size) - found <= free - batch.promised
        if not here:
            return missing <= free
        kept = -(-self.hand_off.reserved_tokens * here // size)
        return missing <= free - kept - int(rules.watermark * rules.kv_blocks)

    def _join(self, now: float) -> list[TransferredRequest]:
        """Admit requests whose adapter fits; one whose adapter does not is skipped, if the engine does so."""
        joined, left = [], deque[TransferredRequest]()
        self.wakes_s = inf
        if self.gate.store is not None:
            self.gate.store.forget_loads(now)
        while self.ready:
            request = self.ready.popleft()
            if request.over:
                self._give_back(request)
            elif left and not self.batch.rules.adapters.skips or not self.gate.admits(request, self.batch.used, now):
                left.append(request)
            else:
                request.state, request.computed = JOINED, request.inputs - 1
                self.stall_s += self.batch.seat(request, now, {})
                joined.append(request)
        self.ready = left
        if left and self.gate.store is not None:
            self.wakes_s = self.gate.store.next_ready_s(now)
        return joined

    def give_up(self, request: TransferredRequest) -> None:
        """A request that does not run yet was given up."""
        request.over = True
        if request.state == READY:
            self.ready.remove(request)
            self._give_back(request)
        elif request.state == ASKS:
            self.asking.remove(request)

    def _give_back(self, request: TransferredRequest) -> None:
        """Release the blocks of a request that was given up."""
        self.batch.unpromise(request)
        self.batch.cache.drop(request, 0, returns=False, keeps=False)
