"""The reference loop: one look at every running request in every step, as engines' schedulers do."""

from __future__ import annotations

from collections import Counter
from math import ceil, inf

import numpy as np

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.clients import Clients
from graphsim.serving.front import Front
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import FINISHED, STATUSES, TIMED_OUT, TOO_LONG, RunLog, empty_log
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.client import Client
from graphsim.traffic.table import BASE, RequestTable
from tests.serving.block_pool import Asker, Pool

Chunks = list[tuple[Asker, int]]


class AskerMaker:
    """What clients send."""

    def __init__(self, table: RequestTable) -> None:
        self._table = table

    def one(self, row: int, sent_s: float) -> Asker:
        table = self._table
        inputs = int(table.input_tokens[row])
        segments: list[tuple[int, int]] = []
        if table.prefixes is not None:
            names, ends = table.prefixes.of(row)
            segments = [(name, min(end, inputs)) for name, end in zip(names, ends, strict=True)]
        return Asker(
            row, inputs, int(table.output_tokens[row]), int(table.adapter[row]), int(table.priority[row]), sent_s,
            segments,
        )  # fmt: skip


class Reference:
    """The state of the engine; waiting: in no order; running: by admission."""

    def __init__(
        self, table: RequestTable, rules: Rules, price: StepPrice, *, client: Client | None = None,
        concurrency: int | None = None, front: Front | None = None, store: AdapterStore | None = None,
    ) -> None:  # fmt: skip
        self.rules, self.price, self.store = rules, price, store
        self.client = client or Client()
        self.log = empty_log(len(table))
        maker = AskerMaker(table)
        self.clients = Clients(table, self.client, front or Front(), concurrency, maker, self.log)  # type: ignore[arg-type]
        self.pool = Pool(rules.kv_blocks, rules.block_tokens, rules.prefix_cache, bool(rules.tiers))
        self.waiting: list[Asker] = []
        self.running: list[Asker] = []
        self.now = self.seen = 0.0
        self.steps = self.decode_steps = self.held_steps = 0
        self.since_look = rules.receive_steps
        self.admissions = self.first_place = self.last_place = 0
        self.ratio, self.ratio_steps = rules.new_token_ratio, 0  # and steps of its fall since
        self.full = False
        self.token_s: dict[int, list[float]] = {}
        self.most_blocks = self.most_adapters = self.most_running = 0

    # -- the clock

    def run(self) -> RunLog:
        while self.now < self.client.cutoff_s:
            if not self.running:
                self.seen = self.now
            looks = not self.running or self.since_look >= self.rules.receive_steps
            self.hear(looks)
            if not self.running and not self.waiting:
                if self.clients.next_s == inf:
                    break
                self.idle(self.clients.next_s)
                continue
            if not self.step():
                following = min(
                    self.clients.next_s, *(at for at, _, asker in self.clients.expiring if not asker.over), inf
                )
                if following == inf:
                    break
                self.idle(following)
        cutoff = self.client.cutoff_s
        self.log.end_s = min(self.now, cutoff)
        late = self.log.finished_s > cutoff
        self.log.status[late] = 0
        self.log.finished_s[late] = np.nan
        self.log.first_token_s[self.log.first_token_s > cutoff] = np.nan
        return self.log

    def idle(self, until: float) -> None:
        self.ratio, self.ratio_steps = self.rules.new_token_ratio, 0
        self.now = self.seen = max(self.now, min(until, self.client.cutoff_s))

    def hear(self, looks: bool) -> None:
        while True:
            if looks:
                self.since_look = 0
                for asker in self.clients.receive(self.seen):
                    self.receive(asker)  # type: ignore[arg-type]
            due = [entry for entry in self.clients.expiring if entry[0] <= self.now and not entry[2].over]
            if not due:
                return
            at, _, asker = min(due)
            if asker in self.running:
                self.leave(asker)  # type: ignore[arg-type]
            else:
                self.waiting.remove(asker)  # type: ignore[arg-type]
            self.end(asker, TIMED_OUT, at)  # type: ignore[arg-type]

    def receive(self, asker: Asker) -> None:
        capacity = self.rules.kv_blocks * self.rules.block_tokens
        if asker.inputs + asker.outputs > self.rules.max_model_len or asker.most_cached > capacity:
            self.end(asker, TOO_LONG, float(self.log.received_s[asker.row]) + self.clients.reply_s)
        else:
            self.last_place += 1
            asker.place = self.last_place
            self.waiting.append(asker)

    def end(self, asker: Asker, status: str, at: float) -> None:
        asker.over = True
        if status == FINISHED and at > asker.sent_s + self.client.timeout_s:
            status, at = TIMED_OUT, asker.sent_s + self.client.timeout_s
        self.log.status[asker.row] = STATUSES.index(status)
        if status == FINISHED:
            self.log.finished_s[asker.row] = at
        self.token_s[asker.row] = asker.token_s
        self.clients.ended(asker.row, at, answered=status == FINISHED)

    # -- one step

    def step(self) -> bool:
        """False where nothing can run."""
        self.stall, self.passed = 0.0, 0
        chunks: Chunks = []
        if self.rules.order == "mixed":
            decodes, preempted = self.go_on(chunks)
            if not preempted and not self.waits():
                budget = self.rules.max_num_batched_tokens - len(decodes) - sum(new for _, new in chunks)
                self.admit(chunks, budget, len(decodes))
        else:
            decodes = self.prompts_first(chunks)
        if not chunks and not decodes:
            return bool(self.running)
        if chunks:
            self.held_steps = 0
        elif self.waiting:
            self.held_steps += 1
        adapters = len({asker.adapter for asker in [*self.running] if asker.adapter != BASE})
        context = sum(asker.tokens - 1 for asker in decodes)
        if chunks:
            seconds = self.price.mixed(
                sum(new for _, new in chunks), sum(new * (a.computed + (new + 1) / 2) for a, new in chunks),
                len(chunks),
                sum(a.computed + new == a.tokens for a, new in chunks), len(decodes), context, adapters,
            )  # fmt: skip
        else:
            seconds = self.price.decode(len(decodes), context, adapters)[0]
        if self.rules.prefill_interval == 1 and not self.rules.wait_steps:
            seconds += self.passed * self.rules.adapters.skip_s
        start, self.now = self.now, self.now + seconds + self.stall
        self.seen = start if self.rules.async_scheduling else self.now
        self.steps += 1
        self.most_blocks = max(self.most_blocks, self.pool.blocks - self.pool.free)
        self.most_adapters = max(self.most_adapters, adapters)
        self.most_running = max(self.most_running, len(self.running))
        self.log.runs.append((start, self.now - start, 1, len(decodes), len(chunks)))
        if decodes:
            self.decode_steps += 1
            self.since_look += 1
            self.ratio_steps += 1
        if chunks:
            self.since_look = self.rules.receive_steps
        self.results(decodes, chunks)
        return True

    def results(self, decodes: list[Asker], chunks: Chunks) -> None:
        for asker in decodes:
            asker.computed += 1
            self.token(asker)
        for asker in decodes:
            self.finish(asker)
        for asker, new in chunks:
            asker.computed += new
            if asker.computed == asker.tokens:
                self.token(asker)
                asker.decoding = True
                self.finish(asker)

    def token(self, asker: Asker) -> None:
        asker.generated += 1
        asker.token_s.append(self.now)
        if asker.generated == 1:
            self.log.first_token_s[asker.row] = self.now + self.clients.reply_s

    def finish(self, asker: Asker) -> None:
        if asker.generated == asker.outputs:
            self.leave(asker)
            self.end(asker, FINISHED, self.now + self.clients.reply_s)

    def leave(self, asker: Asker, *, returns: bool = False, keeps: bool = True) -> None:
        self.running.remove(asker)
        self.pool.drop(asker, asker.computed // self.rules.block_tokens, returns=returns, keeps=keeps)
        others = [other.adapter for other in self.running]
        if self.store is not None and self.counts(asker.adapter) and asker.adapter not in others:
            self.store.touch(asker.adapter, self.now)
        self.full = False

    def preempt(self, asker: Asker) -> None:
        retracts = self.rules.shortage == "retract"
        self.leave(asker, returns=not retracts, keeps=not retracts)
        asker.computed, asker.decoding = 0, False
        self.log.preemptions[asker.row] += 1
        if retracts:
            self.last_place += 1
            asker.place = self.last_place
        else:
            self.first_place -= 1
            asker.place = self.first_place
        self.waiting.append(asker)

    # -- those that run

    def need(self, asker: Asker, new: int) -> int:
        return ceil((asker.computed + new) / self.rules.block_tokens) - len(asker.held)

    def piece(self, missing: int, budget: float) -> int:
        return int(min(missing, self.rules.long_prefill_token_threshold or inf, budget))

    def go_on(self, chunks: Chunks) -> tuple[list[Asker], bool]:
        budget, place, preempted = self.rules.max_num_batched_tokens, 0, False
        planned: dict[Asker, int] = {}
        while place < len(self.running) and budget > 0:
            asker = self.running[place]
            new = 1 if asker.decoding else self.piece(asker.tokens - asker.computed, budget)
            while self.need(asker, new) > self.pool.free:
                victim = self.victim(self.running)
                place -= self.running.index(victim) < place
                budget += planned.pop(victim, 0)
                self.preempt(victim)
                preempted = True
                if victim is asker:
                    break
            if asker not in self.running:
                break
            self.pool.grow(asker, self.need(asker, new))
            if not asker.decoding:
                self.pool.share(asker, (asker.computed + new) // self.rules.block_tokens)
            planned[asker] = new
            budget -= new
            place += 1
        chunks.extend((asker, new) for asker, new in planned.items() if not asker.decoding)
        if preempted:
            self.estimate_again()
        return [asker for asker in planned if asker.decoding], preempted

    def victim(self, among: list[Asker]) -> Asker:
        if self.rules.shortage == "retract":
            decoding = [asker for asker in among if asker.decoding] or among
            return min(decoding, key=lambda a: (a.generated, -a.inputs, -a.order))
        if self.rules.policy == "priority":
            return max(among, key=lambda a: (a.priority, a.sent_s, a.row))
        return among[-1]

    def prompts_first(self, chunks: Chunks) -> list[Asker]:
        budget, stuck = self.rules.max_num_batched_tokens, False
        partial = [asker for asker in self.running if not asker.decoding]
        for asker in partial:
            new = self.piece(asker.tokens - asker.computed, budget)
            if self.need(asker, new) > self.pool.free:
                stuck = True
                continue
            self.pool.grow(asker, self.need(asker, new))
            self.pool.share(asker, (asker.computed + new) // self.rules.block_tokens)
            chunks.append((asker, new))
            budget -= new
        if not stuck and not self.waits() and (partial or not self.full):
            self.admit(chunks, budget, 0)
        if chunks:
            return []
        short = False
        while True:
            decodes = [asker for asker in self.running if asker.decoding]
            if sum(self.need(asker, 1) for asker in decodes) <= self.pool.free:
                break
            self.preempt(self.victim(decodes if len(decodes) > 1 else [a for a in self.running if not a.decoding]))
            short = True
        if stuck and not decodes and not short:
            self.preempt(self.victim(partial))
            short = True
        if short:
            self.estimate_again()
        for asker in decodes:
            self.pool.grow(asker, self.need(asker, 1))
        return decodes

    def estimate_again(self) -> None:
        if self.rules.admission == "estimated":
            decodes = [asker for asker in self.running if asker.decoding]
            done = sum(asker.generated for asker in decodes) + 20 * len(decodes)
            self.ratio = min(1.0, done / (sum(asker.outputs for asker in decodes) + 1))
            self.ratio_steps = -1

    # -- those that wait

    def waits(self) -> bool:
        rules = self.rules
        if not self.running:
            return False
        if self.steps % rules.prefill_interval:
            return True
        partial = any(not asker.decoding for asker in self.running)
        tokens = sum(asker.tokens for asker in self.waiting)
        few = tokens < rules.wait_share * rules.max_num_batched_tokens
        return bool(rules.wait_steps) and self.held_steps < rules.wait_steps and few and not partial

    def admit(self, chunks: Chunks, budget: float, decodes: int) -> None:
        rules, size = self.rules, self.rules.block_tokens
        loads: dict[int, float] = {}
        before = len(self.running)
        while self.waiting and budget > 0:
            if len(self.running) >= rules.max_num_seqs:
                self.full = True
                return
            asker = self.candidate()
            if asker is None:
                self.passed = len(self.waiting) if rules.adapters.skips else 0
                return
            found, idle = self.pool.hit(asker, (asker.tokens - 1) // size)
            loaded = self.pool.beyond(asker, len(found), (asker.tokens - 1) // size)
            there = len(found) + loaded
            missing = asker.tokens - there * size
            new = self.piece(missing, budget)
            if new < missing and not rules.chunked:
                if chunks or decodes:
                    return
                new = missing
            if not self.fits(asker, chunks, there, self.pool.free - idle - loaded, missing, new):
                self.full = before > 0
                return
            self.waiting.remove(asker)
            self.pool.start(asker, found)
            self.pool.grow(asker, loaded)
            asker.computed = there * size
            self.log.loaded_tokens[asker.row] += loaded * size
            if asker.order < 0:
                self.log.admitted_s[asker.row] = self.now
                self.log.cached_tokens[asker.row] = asker.computed
            self.pool.grow(asker, self.need(asker, new))
            self.pool.share(asker, (asker.computed + new) // size)
            self.load(asker, loads)
            self.admissions += 1
            asker.order = self.admissions
            self.running.append(asker)
            chunks.append((asker, new))
            budget -= new

    def fits(self, asker: Asker, chunks: Chunks, found: int, free: int, missing: int, new: int) -> bool:
        rules, size = self.rules, self.rules.block_tokens
        if rules.admission == "no_evict":
            promised = sum(ceil(other.most_cached / size) - len(other.held) for other in self.running)
            return ceil(asker.most_cached / size) - found <= free - promised
        blocks = ceil(new / size)
        if not self.running:
            return blocks <= free
        if rules.admission == "peak":
            have = [(each.tokens + (not each.decoding), each.outputs - each.generated - 1) for each in self.running]
            have.append((asker.tokens + 1, asker.outputs - asker.generated - 1))
            steps = range(max(left for _, left in have) + 1)
            need = [sum(tokens + step for tokens, left in have if left >= step) for step in steps]
            if max(need) >= rules.kv_blocks * size:
                return False
        if rules.admission == "whole_prompt":
            blocks = ceil(missing / size)
        if rules.admission == "estimated":
            clip = 4096
            decodes = [other for other in self.running if other.decoding]
            ratio = max(self.ratio - rules.ratio_decay * max(0, self.ratio_steps), rules.least_ratio)
            left = free * size - ratio * sum(min(other.outputs - other.generated, clip) for other in decodes)
            left -= sum(
                min(other.outputs - other.generated, clip) for other, n in chunks if other.computed + n == other.tokens
            )
            if missing + min(asker.outputs - asker.generated, clip) >= left:
                return False
        return blocks <= free - int(rules.watermark * rules.kv_blocks)

    def candidate(self) -> Asker | None:
        rules = self.rules
        key = {
            "priority": lambda a: a.priority,
            "lof": lambda a: -a.outputs,
            "sjf": lambda a: a.inputs + a.outputs,
        }.get(rules.policy, lambda a: 0)
        waiting = sorted(self.waiting, key=lambda asker: (key(asker), asker.place))
        if rules.policy == "lpm" and len(waiting) <= 128:
            waiting.sort(key=lambda a: -len(self.pool.hit(a, (a.tokens - 1) // rules.block_tokens)[0]))
        for asker in waiting:
            if self.has_place(asker.adapter):
                return asker
            if not rules.adapters.skips:
                return None
        return None

    def counts(self, adapter: int) -> bool:
        return adapter != BASE or self.rules.adapters.base_takes_place

    def used(self) -> Counter[int]:
        return Counter(asker.adapter for asker in self.running if self.counts(asker.adapter))

    def has_place(self, adapter: int) -> bool:
        used = self.used()
        return not self.counts(adapter) or adapter in used or self.store is None or self.store.room_for(adapter, used)

    def load(self, asker: Asker, loads: dict[int, float]) -> None:
        if self.store is None or not self.counts(asker.adapter):
            return
        used = self.used()
        if asker.adapter in used:
            self.store.join(asker.adapter)
        else:
            loads[asker.adapter] = self.store.use(asker.adapter, self.now, used)
            self.stall += loads[asker.adapter]
        self.log.load_stall_s[asker.row] += loads.get(asker.adapter, 0.0)
