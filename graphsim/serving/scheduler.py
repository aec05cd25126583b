"""Which requests a step has: the rules of an engine's scheduler.

`mixed` is vLLM's order (`vllm/v1/core/sched/scheduler.py`): those that run come first, in the order of their admission,
then the waiting as far as tokens, places, adapters and blocks allow. An adapter that does not fit is passed over, while
blocks that do not fit end the search, and no request is admitted in a step that preempts. TensorRT-LLM's in-flight
batching is alike except for what it demands of an admission. `prefill_first` is SGLang's
(`sglang/srt/managers/scheduler.py`): a step with prompts has nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from graphsim.serving.adapter_gate import AdapterGate
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.admission import Admission
from graphsim.serving.batch import Batch, Step
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.shortage import Continuation
from graphsim.serving.weights import Weights


class Scheduler:
    """The plan of each step of one engine. held: decode steps for which waiting prompts were held back."""

    def __init__(self, rules: Rules, store: AdapterStore | None, log: RunLog, weights: Weights | None = None) -> None:
        self.rules = rules
        self.batch = Batch(rules, store, log)
        self.gate = AdapterGate(rules, store, weights, log)
        self.held = 0
        self._going_on, self._admission = Continuation(self.batch), Admission(self.batch, self.gate)
        self._mixes = rules.order == "mixed"
        self._drifts = rules.admission in ("estimated", "peak") or rules.policy == "lpm"  # who fits, as time goes by
        self._waits = rules.prefill_interval > 1 or rules.wait_steps > 0
        self._skip_s = 0.0 if self._waits else rules.adapters.skip_s

    def computed_in(self, computes_s: Callable[[int, int, int], float]) -> None:
        """What computing a prompt's tokens takes (`Admission.computed_in`)."""
        self._admission.computed_in(computes_s)

    def waits(self, steps: int) -> int:
        """Steps, from the one after the given number in all, for which no waiting request is admitted."""
        rules, batch = self.rules, self.batch
        if not self._waits or not batch.alive:
            return 0
        found = -steps % rules.prefill_interval if rules.prefill_interval > 1 else 0
        few = batch.queue.tokens < rules.wait_share * rules.max_num_batched_tokens
        if self.held < rules.wait_steps and few and not batch.partials:
            found = max(found, rules.wait_steps - self.held)
        return found

    def needs_plan(self, steps: int) -> bool:
        """Whether the next step may be more than one of generation alone."""
        batch = self.batch
        running = batch.running
        if batch.partials or running.blocks_next > batch.cache.available:
            return True
        return batch.retry and batch.queue.size > 0 and not batch.is_full and not (self._waits and self.waits(steps))

    @property
    def passing_s(self) -> float:
        """What the scheduler takes in each step for waiting requests that it passes over."""
        return self.batch.queue.size * self._skip_s if self._admission.passes else 0.0

    def plan(self, now: float, steps: int) -> Step:
        """The next step, for which requests are admitted and preempted."""
        step = Step()
        self._admission.passes = False
        waits = self.waits(steps) if self._waits else 0
        if self._mixes:
            self._mixed(step, now, waits)
        else:
            self._prompts_first(step, now, waits)
        if step.chunks:
            self.held = 0
        return step

    def _mixed(self, step: Step, now: float, waits: int) -> None:
        batch = self.batch
        running, cache = batch.running, batch.cache
        going_on = self._going_on
        if going_on.all_at_once(step):
            preempted = False
        elif going_on.takes_from_the_last and len(running.requests) * running.width < self.rules.max_num_batched_tokens:
            preempted = going_on.from_the_last(step, now)
        else:
            preempted = going_on.one_by_one(step, now)
        step.batch = len(running.requests) - len(step.over)
        if step.batch:
            step.context = running.cached
            if step.over:
                step.context -= batch.pass_over(step.over)
        batch.retry = preempted or waits > 0
        if preempted or waits or not batch.queue.size:
            return
        taken = running.blocks_next  # by the generating, whose step comes first
        cache.available -= taken
        batch.promised -= taken
        budget = self.rules.max_num_batched_tokens - step.batch * running.width
        if step.chunks:
            budget -= sum(new for _, new in step.chunks)
        left = self._admission.admit(step, now, budget)
        cache.available += taken
        batch.promised += taken
        batch.retry = left <= 0 or len(step.chunks) > 0 or self._drifts

    def _prompts_first(self, step: Step, now: float, waits: int) -> None:
        batch = self.batch
        budget, stuck = self.rules.max_num_batched_tokens, False
        for request in batch.partials:
            new, blocks = self._going_on.wants(request, budget)
            if blocks > batch.cache.available:
                stuck = True
            else:
                batch.give(request, new, blocks)
                step.chunks.append((request, new))
                budget -= new
        if not stuck and not waits and batch.queue.size and (batch.partials or not batch.is_full):
            self._admission.admit(step, now, budget)
        batch.retry = waits > 0 or len(step.chunks) > 0 or self.rules.policy == "lpm"
        if not step.chunks:
            self._going_on.make_room(now, stuck=stuck)
            step.batch, step.context = len(batch.running), batch.running.cached
