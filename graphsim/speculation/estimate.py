"""An estimate with speculation: a batch of identical requests, every step verified, the expected number of tokens."""

from __future__ import annotations

from dataclasses import fields, replace

import networkx as nx
import numpy as np

from graphsim.cost.base import annotate
from graphsim.deployment.energy import Activities, Activity, activities_of, activity_of, energy_of
from graphsim.deployment.engine_time import prompt_steps
from graphsim.deployment.inference import Inference
from graphsim.deployment.memory import Memory
from graphsim.deployment.scenarios import scenarios_in, take
from graphsim.errors import HardwareError
from graphsim.models.phase import decode
from graphsim.result import Estimate, PhaseEstimate, Speculated
from graphsim.speculation.drafts import Draft, check_target, draft_of
from graphsim.speculation.memory import with_draft
from graphsim.speculation.notes import notes_of
from graphsim.speculation.speculation import Speculation
from graphsim.speculation.step_times import SpeculativeStep, StepTimes
from graphsim.units import Num

NODES = 9
"""Contexts of a generation at which a step is priced; it is nearly linear between them."""


def speculated(plain: Estimate, speculation: Speculation) -> Estimate:
    """The estimate of the same requests where a draft proposes tokens; `plain` is the one without.

    Where no token is drafted, the numbers are those of `plain`.
    Raises ConfigError for an unknown or unsuitable draft, and for arrays that differ in length.
    """
    inference = plain.inference
    if inference is None:
        raise AssertionError("the estimate holds no inference")
    check_target(inference.deployment)
    scenarios_in(inference.requests, inference.deployment, speculation)
    draft = draft_of(speculation, inference.deployment)
    if speculation.never:
        return replace(plain, settings=plain.settings | {"speculation": speculation.to_dict()})
    return _Speculating(plain, inference, speculation, draft).estimate()


class _Speculating:
    """One inference whose tokens are drafted."""

    def __init__(self, plain: Estimate, inference: Inference, speculation: Speculation, draft: Draft) -> None:
        self.plain, self.inference, self.speculation, self.draft = plain, inference, speculation, draft
        self.drafts: Num = np.greater(speculation.tokens, 0.0)
        self.times = self._times(inference, speculation)

    def _times(self, inference: Inference, speculation: Speculation) -> StepTimes:
        return StepTimes(target=inference.deployment, draft=self.draft, tokens=speculation.tokens)

    def estimate(self) -> Estimate:
        """The estimate with speculation's times, memory and energy."""
        plain, requests = self.plain, self.inference.requests
        further = np.maximum(requests.output_tokens - 1.0, 1.0)
        step = self._mean_step()
        longer = step.seconds / step.plain_s
        steps = self.speculation.steps_for(further)
        steady_s = plain.tpot_s * longer * steps / further
        reading_s = self.times.prompt_s(self._share(self.inference), requests.input_tokens)
        prompt_s = reading_s * _micro_batches(self.inference)  # one after another on the last stage
        before_s, after_s = self._first_drafting_s(reading_s, prompt_s, step.draft_s)
        tpot_s = np.where(self.drafts, steady_s + after_s / further, plain.tpot_s)[()]
        times = self.inference.latencies(plain.ttft_s + before_s, tpot_s * further)
        told = Speculated(
            tokens_per_step=self.speculation.tokens_per_step, draft_s=plain.tpot_s * step.draft_s / step.plain_s,
            verify_s=plain.tpot_s * step.verify_s / step.plain_s, plain_s=plain.tpot_s, draft_prompt_s=prompt_s,
            speedup=np.where(self.drafts, plain.tpot_s / steady_s, 1.0)[()],
        )  # fmt: skip
        parallelism = self.inference.deployment.parallelism
        return replace(
            plain, ttft_s=times.ttft_s, tpot_s=tpot_s, latency_s=times.latency_s, tokens_per_s=times.tokens_per_s,
            settings=plain.settings | {"speculation": self.speculation.to_dict()},
            decode=PhaseEstimate(name="verification", build=self._verification),
            measure_memory=self._memory, speculation=told,
            measure_energy=lambda: energy_of(
                times, self._activities(steps / further), self.inference.hardware, parallelism.devices
            ),
            notes=(*plain.notes, *notes_of(self.inference.deployment, self.draft)),
        )  # fmt: skip

    def _first_drafting_s(self, reading_s: Num, prompt_s: Num, draft_s: Num) -> tuple[Num, Num]:
        """What the drafts of the first tokens take before these leave the device (`StepTimes.sent`), and after that.

        Afterwards, a step that drafts behind its tokens is waited for by the next one, the last one's by nobody: the
        first drafting takes the place of the last.
        reading_s: the draft reads the prompts of a micro-batch; prompt_s: of all
        draft_s: of a step
        """
        tokens = self.inference.requests.input_tokens
        if self.times.sent == "read":
            return prompt_s, 0.0
        share = self._share(self.inference)
        further_s = self.times.further_s(share, tokens)
        if self.times.sent == "drafted":
            return prompt_s + further_s, 0.0
        steps, largest = prompt_steps(self.inference.deployment, share * tokens, tokens)
        ahead_s = reading_s * largest * (steps - 1.0) / (share * tokens)
        return ahead_s, reading_s - ahead_s + further_s - draft_s

    @staticmethod
    def _share(inference: Inference) -> Num:
        return inference.deployment.shares(inference.requests.batch)[0]

    def _mean_step(self) -> SpeculativeStep:
        """The mean step over contexts spaced evenly between the first and the last one of the generation."""
        requests = self.inference.requests
        first, span = requests.input_tokens, np.maximum(requests.output_tokens - 2.0, 0.0)
        places = np.arange(NODES) / (NODES - 1.0)
        scenarios = scenarios_in(requests, self.inference.deployment, self.speculation)
        if scenarios is None:
            found = self._step(self.inference, self.speculation, first + span * places)
            return SpeculativeStep(**{name: _weighted(value, 1) for name, value in _parts(found)})
        rows = np.repeat(np.arange(scenarios), NODES)
        every = np.zeros(scenarios)
        contexts = ((first + every)[:, None] + (span + every)[:, None] * places).ravel()
        found = self._step(take(self.inference, rows), take(self.speculation, rows), contexts)
        return SpeculativeStep(**{name: _weighted(value, scenarios) for name, value in _parts(found)})

    def _step(self, inference: Inference, speculation: Speculation, contexts: Num) -> SpeculativeStep:
        requests = inference.requests
        return self._times(inference, speculation).step(
            self._share(inference), contexts, input_tokens=requests.input_tokens, media=requests.media,
            micro_batches=_micro_batches(inference),
        )  # fmt: skip

    def _verification(self) -> nx.DiGraph:
        """The annotated graph of a verified step at the mean context."""
        inference, requests = self.inference, self.inference.requests
        graph = self.times.verification(
            self._share(inference), inference.mean_context, requests.input_tokens, requests.media
        )
        return annotate(graph, inference.hardware, inference.price, inference.deployment.caution)

    def _memory(self) -> Memory:
        return with_draft(self.inference, self.draft, self.speculation.tokens)

    def _activities(self, steps_per_token: Num) -> Activities | None:
        """The device's activity per token; None if it states no peak for a format that is computed."""
        inference, share = self.inference, self._share(self.inference)
        try:
            plain = activities_of(inference)
            stages = inference.deployment.parallelism.pp
            parts = [activity_of(self._verification(), inference.hardware, stages)]
            deployment = self.draft.deployment
            if deployment is not None:
                first = self.times.first_pass(deployment, share, inference.mean_context)
                parts.append(activity_of(first, inference.hardware, stages))
                if not self.draft.at_once:
                    one = deployment.step([decode(share, inference.mean_context)])
                    passes = np.maximum(self.speculation.tokens - 1.0, 0.0)
                    parts.append(activity_of(one, inference.hardware, stages) * passes)
        except HardwareError:
            return None
        often = steps_per_token * _micro_batches(inference)
        memory_s = sum((part.memory_s for part in parts), start=0.0) * often
        compute_s = sum((part.compute_s for part in parts), start=0.0) * often
        own = plain.decode
        return Activities(
            prefill=plain.prefill,
            decode=Activity(
                memory_s=np.where(self.drafts, memory_s, own.memory_s)[()],
                compute_s=np.where(self.drafts, compute_s, own.compute_s)[()],
            ),
        )


def _micro_batches(inference: Inference) -> Num:
    """How many have sequences, of each scenario."""
    shares = inference.deployment.shares(inference.requests.batch)
    return 1.0 if len(shares) == 1 else sum((np.minimum(share, 1.0) for share in shares), start=0.0)


def _parts(step: SpeculativeStep) -> list[tuple[str, Num]]:
    return [(field.name, getattr(step, field.name)) for field in fields(step)]


def _weighted(value: Num, scenarios: int) -> Num:
    """For each scenario, the mean of a quantity along its contexts (trapezoidal rule: the ends count half)."""
    weights = np.full(NODES, 1.0)
    weights[0] = weights[-1] = 0.5
    along = np.broadcast_to(value, [scenarios * NODES]).reshape(scenarios, NODES)
    means = along @ weights / weights.sum()
    return float(means[0]) if scenarios == 1 and np.ndim(value) < 2 else means
