"""The running requests, and what they hold: blocks, adapters, reserved blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.cache import KVCache
from graphsim.serving.gaps import Gaps
from graphsim.serving.offloading import TieredCache
from graphsim.serving.queue import Queue
from graphsim.serving.requests import Request
from graphsim.serving.reservation import NewTokenRatio
from graphsim.serving.rows import plain
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.running import Running
from graphsim.serving.speculating import Speculating
from graphsim.traffic.table import BASE

NOBODY_OVER: Set[Request] = frozenset()


@dataclass(slots=True)
class Step:
    """One step: chunks of prompts with their new tokens, and the sequences that generate a token in the same step.

    batch: number of these sequences
    context: tokens that they have in the cache
    over: sequences that the step skips
    stall_s: seconds that it waits for adapters, and for keys and values from tiers
    least_s: its least duration in
        seconds, as its layers wait for these
    """

    chunks: list[tuple[Request, int]] = field(default_factory=list)
    batch: int = 0
    context: int = 0
    over: Set[Request] = NOBODY_OVER
    stall_s: float = 0.0
    least_s: float = 0.0


class Batch:
    """The running requests.

    partials: prompts computed in chunks, by order of admission
    used: number of requests of each adapter; adapters: number of distinct adapters, without the base model
    promised: blocks that running requests may still take, if admissions reserve them
    retry: whether a request has arrived or left since the waiting requests were last considered
    is_full: whether no request is admitted until one leaves (SGLang's batch_is_full)
    """

    def __init__(self, rules: Rules, store: AdapterStore | None, log: RunLog) -> None:
        self.rules, self.store, self.log = rules, store, log
        self.queue, self.running = Queue(rules.policy), _running(rules)
        self.cache = _cache(rules)
        self.gaps = Gaps(log.gaps)
        if store is not None:
            store.attach(self.cache)
        self.partials: list[Request] = []
        self.used: Counter[int] = Counter()
        self.retry = self.is_full = False
        self.adapters = 0
        self._admitted_s, self._cached_tokens = plain(log.admitted_s), plain(log.cached_tokens)
        self._loaded_tokens = plain(log.loaded_tokens)
        self.ratio = NewTokenRatio(rules.new_token_ratio, rules.ratio_decay, rules.least_ratio)
        self.to_come = self.running.to_come() if rules.admission == "estimated" else None
        self.promised = 0
        self.counts_base = rules.adapters.base_takes_place
        self._promises = rules.admission == "no_evict"
        self._admissions = 0
        pages = store is not None and type(store).settle is not AdapterStore.settle
        self.settles = store.settle if store is not None and pages else None

    @property
    def alive(self) -> int:
        """The running requests."""
        return len(self.running.requests) + len(self.partials)

    def enter(
        self, request: Request, now: float, found: int, new: int, step: Step, loads: dict[int, float], loaded: int = 0
    ) -> None:
        """A request starts to run in a step, with its cached leading blocks and blocks for its new tokens.

        loads: seconds that the step waits for each adapter
        loaded: blocks after those found that come from tiers
        """
        cache, row, size = self.cache, request.row, self.rules.block_tokens
        cache.take(request, found)
        if loaded:
            cache.give(request, loaded)
            found += loaded
            self._loaded_tokens[row] += loaded * size
        cache.give(request, -(-new // size))
        if request.segments:
            cache.share(request, found + new // size)
        request.computed = found * size
        if request.order < 0:
            self._cached_tokens[row] = request.computed
        self.promise(request)
        step.stall_s += self.seat(request, now, loads)
        step.chunks.append((request, new))

    def promise(self, request: Request) -> None:
        """Reserve the blocks that a request may still take, if admissions leave them to running requests."""
        if self._promises:
            self.promised += -(-request.most_cached // self.rules.block_tokens) - request.blocks

    def unpromise(self, request: Request) -> None:
        """Release the blocks reserved for a request."""
        if self._promises:
            self.promised -= -(-request.most_cached // self.rules.block_tokens) - request.blocks

    def seat(self, request: Request, now: float, loads: dict[int, float]) -> float:
        """Give a request whose blocks are allocated a place; returns the seconds that its step waits for it.

        loads: seconds that the step waits for each adapter
        """
        row, adapter, stall_s = request.row, request.adapter, 0.0
        if request.order < 0:
            self._admitted_s[row] = now
        self._admissions += 1
        request.order = self._admissions
        if adapter != BASE or self.counts_base:
            if self.store is not None:
                if self.used[adapter]:
                    self.store.join(adapter)
                else:
                    stall_s = loads[adapter] = self.store.use(adapter, now, self.used)
                if loads.get(adapter):
                    self.log.load_stall_s[row] += loads[adapter]
            self.used[adapter] += 1
            self.adapters = len(self.used) - (BASE in self.used)
        return stall_s

    def give(self, request: Request, new: int, blocks: int) -> None:
        """Blocks for the next tokens of a prompt in pieces."""
        self.cache.give(request, blocks)
        if self._promises:
            self.promised -= blocks
        self.cache.share(request, (request.computed + new) // self.rules.block_tokens)

    def prompt_done(self, request: Request) -> None:
        """A prompt is computed and has yielded a token, but not the last one."""
        self.running.join(request)
        if self.to_come is not None:
            self.to_come.add(request, self.running.steps)

    def pass_over(self, requests: Set[Request]) -> int:
        """Skip these requests in a step in which others generate; returns the tokens that they have in the cache."""
        cached = 0
        for request in requests:
            cached += self.running.tokens(request) - 1
            if self.to_come is not None:
                self.to_come.remove(request)
            self.running.delay(request)
            if self.to_come is not None:
                self.to_come.add(request, self.running.steps)
        return cached

    def advance(self, steps: int, now: float) -> None:
        """Account for decode steps up to now: their blocks and tokens."""
        blocks = self.running.advance(steps)
        self.cache.available -= blocks
        if self._promises:
            self.promised -= blocks
        if self.settles is not None:
            self.settles(now)

    def release(self, request: Request, now: float, *, returns: bool = False, keeps: bool = True) -> None:
        """Release a running request's place, blocks and adapter.

        returns, keeps: as in `KVCache.drop`
        """
        size = self.rules.block_tokens
        if request.generates:
            if self.to_come is not None:
                self.to_come.remove(request)
            cached = self.running.leave(request) - 1
            request.blocks = self.running.blocks_held(request, cached)
        else:
            cached = request.computed
            if request in self.partials:
                self.partials.remove(request)
        self.unpromise(request)
        self.cache.drop(request, cached // size, returns=returns, keeps=keeps)
        adapter = request.adapter
        if adapter in self.used:
            self.used[adapter] -= 1
            if not self.used[adapter]:
                del self.used[adapter]
                self.adapters = len(self.used) - (BASE in self.used)
                if self.store is not None:
                    self.store.touch(adapter, now)
        self.retry, self.is_full = True, False

    def preempt(self, request: Request, now: float) -> None:
        """A request returns to the queue; its computed tokens are lost except for those that stay cached.

        SGLang places retracted requests after the others, and drops their own keys and values at once.
        """
        if request.generates:
            self.gaps.leaves(now, request)
        retracts = self.rules.shortage == "retract"
        self.release(request, now, returns=not retracts, keeps=not retracts)
        request.computed = 0
        self.log.preemptions[request.row] += 1
        self.log.evicted.append((now, request.row))
        if retracts:
            self.queue.append(request)
        else:
            self.queue.put_first(request)

    def estimate_again(self) -> None:
        """After preemptions: the share of tokens to reserve follows from what the others have generated so far."""
        if self.to_come is None:
            return
        running = self.running
        generated = sum(running.tokens(request) - request.inputs for request in running.requests)
        outputs = sum(request.outputs for request in running.requests)
        self.ratio.retracted(running.steps, generated, outputs, len(running))


def _cache(rules: Rules) -> KVCache:
    if rules.tiers:
        return TieredCache(rules.kv_blocks, rules.block_tokens, rules.tiers, keeps=rules.prefix_cache)
    return KVCache(rules.kv_blocks, rules.block_tokens, keeps=rules.prefix_cache)


def _running(rules: Rules) -> Running:
    if rules.drafted is None:
        return Running(rules.block_tokens)
    return Speculating(rules.block_tokens, rules.drafted)
