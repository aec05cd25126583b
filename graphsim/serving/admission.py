"""Which waiting requests join a step, by order, places, tokens, adapters and blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from graphsim.serving.adapter_gate import AdapterGate
from graphsim.serving.batch import Batch, Step
from graphsim.serving.offloading import Loads, TieredCache
from graphsim.serving.peak_need import peak_tokens
from graphsim.serving.queue import LONGEST_LPM_QUEUE
from graphsim.serving.requests import Request
from graphsim.serving.reservation import CLIPPED_TOKENS, RemainingTokens
from graphsim.traffic.table import BASE

NOTHING_LOADED: Sequence[tuple[int, int, float]] = ()


class Admission:
    """Moves requests from the queue into the batch.

    passes: whether it last skipped all waiting requests because no slot was free
    loads: which blocks are worth loading from tiers of the cache, once the engine has set the cost of recomputing them
    """

    def __init__(self, batch: Batch, gate: AdapterGate) -> None:
        self.batch, self.gate, self.rules = batch, gate, batch.rules
        self._piece = self.rules.long_prefill_token_threshold or inf
        self._watermark = int(self.rules.watermark * self.rules.kv_blocks)
        self._looks_for_prefixes = self.rules.policy == "lpm"
        self._fills = self.rules.order == "prefill_first"
        self.passes = False
        self.loads: Loads | None = None

    def computed_in(self, computes_s: Callable[[int, int, int], float]) -> None:
        """Set the time to compute a prompt's tokens, as in `Loads`; used only by caches with tiers."""
        if isinstance(self.batch.cache, TieredCache):
            self.loads = Loads(self.batch.cache, computes_s)

    def admit(self, step: Step, now: float, budget: float) -> float:
        """Admit waiting requests to the step; returns the rest of its token budget."""
        batch, rules, queue, size = self.batch, self.rules, self.batch.queue, self.rules.block_tokens
        loads: dict[int, float] = {}
        self.passes = False
        if self.gate.looks:
            step.stall_s += self.gate.look(now, queue, batch.used, batch.running, batch.partials)
        alive = len(batch.running.requests) + len(batch.partials)
        places = rules.max_num_seqs - alive
        while queue.size and budget > 0:
            if places <= 0:
                batch.is_full = self._fills
                break
            request = self._candidate(now)
            if request is None:
                self.passes = rules.adapters.skips
                break
            tokens = request.inputs + request.generated
            found = idle = 0
            if request.segments or request.kept is not None:
                found, idle = batch.cache.hit(request, (tokens - 1) // size)
            loaded, parts = 0, NOTHING_LOADED
            if self.loads is not None and request.segments:
                loaded, parts = self.loads.worth(request, tokens, found)
            missing = tokens - (found + loaded) * size
            new = missing if missing <= budget and missing <= self._piece else int(min(missing, self._piece, budget))
            if new < missing and not rules.chunked:
                if step.chunks or step.batch:
                    break
                new = missing  # alone in its step
            free = batch.cache.available - idle - loaded
            if self.gate.pages:
                free -= self.gate.blocks(request, batch.used)
            if not self._fits(step, request, free, found + loaded, new, missing):
                batch.is_full = self._fills and alive > 0
                break
            queue.remove(request)
            batch.enter(request, now, found, new, step, loads, loaded)
            if loaded:
                self._wait_for(parts, step, now)
            budget, places = budget - new, places - 1
        return budget

    def _wait_for(self, parts: Sequence[tuple[int, int, float]], step: Step, now: float) -> None:
        """Account for a step with requests whose keys and values come from tiers, one after another."""
        size, log = self.rules.block_tokens, self.batch.log
        seconds = sum(part[2] for part in parts)
        at = now + step.least_s
        for tier, blocks, part_s in parts:
            log.tier_loads.append((at, part_s, tier, blocks * size))
            at += part_s
        if self.rules.tier_reads == "stall":
            step.stall_s += seconds
        else:
            step.least_s += seconds

    def _fits(self, step: Step, request: Request, free: int, found: int, new: int, missing: int) -> bool:
        """Whether there are as many free blocks for a request as the rules require.

        free: unused blocks
        found: its own blocks in the cache
        new: tokens that it would get, out of the missing ones
        """
        rules, batch, size = self.rules, self.batch, self.rules.block_tokens
        if rules.admission == "no_evict":
            return -(-request.most_cached // size) - found <= free - batch.promised
        if not step.chunks and not batch.alive:
            return -(-new // size) <= free
        if rules.admission == "peak":
            held = self.gate.held_blocks(request) if self.gate.pages else 0
            if self._peak(step, request) >= (rules.kv_blocks - held) * size:
                return False
        to_come = batch.to_come
        if to_come is not None and not self._is_expected_to_fit(to_come, step, request, free * size, missing):
            return False
        asked = missing if rules.admission == "whole_prompt" else new
        return -(-asked // size) <= free - self._watermark

    def _peak(self, step: Step, request: Request) -> int:
        """The peak number of tokens of the running requests together with this one."""
        batch, running = self.batch, self.batch.running
        needs = [(running.tokens(each), each.end - running.steps - 1) for each in running.requests]
        others = [*batch.partials, *(each for each, _ in step.chunks if each not in batch.partials), request]
        return peak_tokens(needs + [(each.tokens + 1, each.outputs - each.generated - 1) for each in others])

    def _is_expected_to_fit(
        self, to_come: RemainingTokens, step: Step, request: Request, tokens: int, missing: int
    ) -> bool:
        """Whether prompt and answer fit in addition to a share of the running requests' remaining tokens and all tokens
        of new ones.
        """
        steps = self.batch.running.steps
        left = tokens - to_come.total(steps) * self.batch.ratio.at(steps)
        for other, new in step.chunks:
            if other.computed + new == other.tokens:
                left -= min(other.outputs - other.generated, CLIPPED_TOKENS)
        return missing + min(request.outputs - request.generated, CLIPPED_TOKENS) < left

    def _candidate(self, now: float) -> Request | None:
        """The next waiting request whose adapter fits."""
        batch, queue, gate = self.batch, self.batch.queue, self.gate
        if self._looks_for_prefixes and queue.size <= LONGEST_LPM_QUEUE:
            return self._longest_prefix(now)
        chosen = gate.candidates(queue) if gate.chooses else None
        if chosen is not None:
            return next((request for request in chosen if gate.admits(request, batch.used, now)), None)
        head = queue.head()
        if head is None or gate.admits(head, batch.used, now):
            return head
        if not self.rules.adapters.skips:
            return None
        if len(batch.used) >= self.rules.adapters.max_loras:
            return queue.head_of(batch.used.keys() if batch.counts_base else {*batch.used, BASE})
        return next((r for r in queue.first_of_each() if gate.admits(r, batch.used, now)), None)

    def _longest_prefix(self, now: float) -> Request | None:
        """The waiting request with most of its prompt in the cache, among those whose adapter fits."""
        size, skips = self.rules.block_tokens, self.rules.adapters.skips
        best, most = None, -1
        for request in self.batch.queue.in_order():
            found = self.batch.cache.hit(request, (request.tokens - 1) // size)[0]
            if found > most and (not skips or self.gate.admits(request, self.batch.used, now)):
                best, most = request, found
        if best is None or skips or self.gate.admits(best, self.batch.used, now):
            return best
        return None
