"""One deployment under one batch of requests: the graphs of its steps, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from graphsim.cost.base import CostModel, annotate
from graphsim.deployment.cache import kept_of
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.engine_time import EngineTime, host_s, joint_s, mapping_s, request_s
from graphsim.deployment.memory import Memory, Sequences, fullest, memories_of, stages_of
from graphsim.deployment.order import NeedsNumbers, check_own
from graphsim.deployment.scenarios import count, scenarios_in, take
from graphsim.deployment.workspace import taken_bytes
from graphsim.errors import ConfigError
from graphsim.graph.schedule import latest, makespan_s
from graphsim.hardware import Hardware
from graphsim.models.media import Media
from graphsim.models.phase import Phase
from graphsim.ops import Repeat
from graphsim.symbolic.questions import alike, may_be_nonzero, may_be_zero
from graphsim.symbolic.substitute import with_fields
from graphsim.units import Num, short


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """A batch of identical requests; numbers may be arrays over scenarios.

    input_tokens: all tokens of each prompt, including those of its media
    media: of each, None for none
    """

    batch: Num
    input_tokens: Num
    output_tokens: Num
    media: Media | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for anything but whole numbers of at least 1."""
        for name in ("batch", "input_tokens", "output_tokens"):
            object.__setattr__(self, name, count(name, getattr(self, name)))
        if self.media is not None and not isinstance(self.media, Media):
            raise ConfigError(f"media = {short(self.media)} is not allowed; expected gs.Media(images=…, audio_s=…)")
        if self.media is not None and not self.media.is_any:
            object.__setattr__(self, "media", None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latencies:
    """The latencies of a batch of identical requests, from the times of its steps: their only definition.

    ttft_s: to the first token
    generation_s: of all decode steps after the first token, or of one step where there is
        no further token; batch, output_tokens: of the requests. Numbers, or arrays that broadcast.
    """

    ttft_s: Num
    generation_s: Num
    batch: Num
    output_tokens: Num

    @property
    def tpot_s(self) -> Num:
        """Mean time of each token after the first; of the next one where none was asked for."""
        return self.generation_s / np.maximum(self.output_tokens - 1.0, 1.0)

    @property
    def latency_s(self) -> Num:
        """Seconds of the whole batch: the prompt, and the generation where there is more than one token."""
        return self.ttft_s + np.where(np.greater(self.output_tokens, 1.0), 1.0, 0.0)[()] * self.generation_s

    @property
    def tokens_per_s(self) -> Num:
        """Generated tokens of the whole batch per second."""
        return self.batch * self.output_tokens / self.latency_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inference:
    """One deployment under one batch of requests: its graphs, times and memory, by the passes.

    tolerance: of the sum over a growing context by the passes, where there are many scenarios (see generation.py)
    """

    deployment: Deployment
    requests: Requests
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        """A model without an output head answers with its prompt step, so nothing is generated after it."""
        if not self.deployment.model.generates:
            one = np.ones_like(self.requests.output_tokens, dtype=np.float64)[()]
            object.__setattr__(self, "requests", replace(self.requests, output_tokens=one))

    @property
    def hardware(self) -> Hardware:
        """The deployment's device."""
        return self.deployment.device

    @property
    def price(self) -> CostModel:
        """The deployment's prices."""
        return self.deployment.price

    @property
    def scenarios(self) -> int | None:
        """How many scenarios its arrays hold; None where there are only numbers. Raises ConfigError if they differ."""
        return scenarios_in(self.requests, self.deployment)

    def latencies(self, ttft_s: Num, generation_s: Num) -> Latencies:
        """The latencies that follow from the times of the steps."""
        requests = self.requests
        return Latencies(
            ttft_s=ttft_s, generation_s=generation_s, batch=requests.batch, output_tokens=requests.output_tokens
        )

    def check_passes(self) -> None:
        """Raise GraphError unless the graphs behind a user's own passes are valid, in the prompt step and the next."""
        deployment, requests = self.deployment, self.requests
        after = check_own(deployment.passes)
        if after is None:
            return
        share = deployment.shares(requests.batch)[0]
        given = requests.input_tokens
        prompt = deployment.prompt_step(share, given, requests.media)
        for phase in (prompt, deployment.next_step(share, given, given, requests.media)):
            deployment.stages(phase, after)

    def prefill_graph(self) -> nx.DiGraph:
        """The annotated prompt step."""
        graph = self.deployment.prefill(self.requests.batch, self.requests.input_tokens, media=self.requests.media)
        return annotate(graph, self.hardware, self.price, self.deployment.caution)

    @property
    def mean_context(self) -> Num:
        """Tokens in the cache before a step of the generation, on average."""
        return self.requests.input_tokens + np.maximum(self.requests.output_tokens - 2.0, 0.0) / 2.0

    def decode_graph(self) -> nx.DiGraph:
        """The annotated decode step at the mean context of the generation."""
        graph = self.deployment.decode(
            self.requests.batch, self.mean_context, input_tokens=self.requests.input_tokens, media=self.requests.media
        )
        return annotate(graph, self.hardware, self.price, self.deployment.caution)

    def ttft_s(self) -> Num:
        """Time to the first token: of the prompt step, and of the engine's own work."""
        return self.first_token_s(self.prefill_graph())

    def first_token_s(self, prompt: nx.DiGraph) -> Num:
        """Time to the first token, from the annotated prompt step."""
        return self._way_s + self._waited_s(prompt) + makespan_s(prompt)

    def engine_time(self, prompt: nx.DiGraph) -> EngineTime:
        """The engine's part of the time to the first token, from the annotated prompt step."""
        return EngineTime(request_s=self._way_s, launches_s=self._waited_s(prompt))

    @property
    def _way_s(self) -> Num:
        return request_s(self.deployment, self.requests.input_tokens)

    def _waited_s(self, prompt: nx.DiGraph) -> Num:
        """Time that the prompt step waits for the host."""
        deployment, kernels_s = self.deployment, makespan_s(prompt)
        shares = deployment.shares(self.requests.batch)
        tokens = shares[0] * self.requests.input_tokens
        there = sum((np.minimum(share, 1.0) for share in shares), start=0.0)
        started_s = host_s(deployment, prompt, tokens, micro_batches=there, prompt_tokens=self.requests.input_tokens)
        return joint_s(deployment, kernels_s, started_s) - kernels_s + mapping_s(deployment, tokens)

    def generation_s(self) -> Num:
        """Time of all decode steps after the first token; of one step where there is no further token."""
        from graphsim.deployment.generation import sum_steps, sum_steps_many

        steps = np.maximum(self.requests.output_tokens - 1.0, 1.0)
        first = self.requests.input_tokens
        scenarios = self.scenarios
        if scenarios is None:
            return sum_steps(lambda contexts, _: self._steps_s(contexts), float(first), float(steps))

        def step(contexts: NDArray[np.float64], rows: NDArray[np.intp] | None) -> Num:
            return (self if rows is None else take(self, rows)).step_s(contexts)

        every = np.zeros(scenarios)
        return sum_steps_many(step, first + every, steps + every, self.tolerance)

    def _steps_s(self, contexts: NDArray[np.float64]) -> Num:
        """Time of each step of one scenario; step by step where a pass needs single numbers."""
        try:
            return self.step_s(contexts)
        except NeedsNumbers:
            return np.array([self.step_s(float(context)) for context in contexts])

    def step_graph(self, context: Num) -> nx.DiGraph:
        """The decode step of the largest micro-batch at given contexts, not annotated."""
        return self.deployment.step([self._next(self.deployment.shares(self.requests.batch)[0], context)])

    def step_s(self, context: Num, graph: nx.DiGraph | None = None) -> Num:
        """Time per decode step at given contexts. graph: its `step_graph`, if already available.

        Through a pipeline, a step recurs after the longer of one micro-batch's way through all stages
        and the slowest stage's work on all micro-batches.
        """
        shares = self.deployment.shares(self.requests.batch)
        way_s = self.time_s(self.step_graph(context) if graph is None else graph)
        if len(shares) == 1:
            return way_s
        return np.maximum(way_s, self._slowest_stage_s(shares, context))

    def _slowest_stage_s(self, shares: Sequence[Num], context: Num) -> Num:
        """The longest that any stage works on all micro-batches; which have at most two sizes."""
        large, small = shares[0], shares[-1]
        first = [self.time_s(stage) for stage in self.deployment.stages(self._next(large, context))]
        if alike(large, small):
            return latest(first) * len(shares)
        second = [self.time_s(stage) for stage in self.deployment.stages(self._next(small, context))]
        larger = sum((np.minimum(share - small, 1.0) for share in shares), start=0.0)
        return latest(larger * a + (len(shares) - larger) * b for a, b in zip(first, second, strict=True))

    def _next(self, share: Num, context: Num) -> Phase:
        """The step of one more token of a micro-batch after `context` tokens."""
        return self.deployment.next_step(share, self.requests.input_tokens, context, self.requests.media)

    def mixed_s(self, phase: Phase) -> Num:
        """Time of a step with prompts, which no captured graph holds."""
        graph = annotate(self.deployment.step([phase]), self.hardware, self.price)
        started_s = host_s(self.deployment, graph, phase.tokens)
        return joint_s(self.deployment, makespan_s(graph), started_s) + mapping_s(self.deployment, phase.tokens)

    def time_s(self, graph: nx.DiGraph) -> Num:
        """Time of a graph on the deployment's device."""
        return makespan_s(annotate(graph, self.hardware, self.price))

    def one_time_s(self) -> Num:
        """Time of the one-time nodes, one after another; stages work side by side."""
        total: Num = 0.0
        for stage in self.deployment.held():
            total = np.maximum(total, self._once_s(stage))
        return total

    def _once_s(self, graph: nx.DiGraph) -> Num:
        total: Num = 0.0
        for _, op in graph.nodes(data="op"):
            if isinstance(op, Repeat):
                total = total + op.times * self._once_s(op.body)
            elif op.once:
                total = total + self.price(op, self.hardware).latency_s
        return total

    def memory(self) -> Memory:
        """Memory per device at the end of the generation; the base model's where no slot is kept for an adapter."""
        return fullest(self.memories())

    def memories(self) -> list[Memory]:
        """The same of each pipeline stage."""
        lora = self.deployment.adapter
        slots = 0.0 if lora is None else lora.slots
        base = with_fields(self.deployment, {"lora": None})
        if not may_be_nonzero(slots):
            return self._memories_of(base.stored, 0.0)
        found = self._memories_of(self.deployment.stored, slots)
        if not may_be_zero(slots):
            return found
        names = [field.name for field in fields(Memory)]
        return [
            Memory(
                **{name: np.where(np.greater(slots, 0.0), getattr(own, name), getattr(bare, name)) for name in names}
            )
            for own, bare in zip(found, self._memories_of(base.stored, 0.0), strict=True)
        ]

    def _memories_of(self, deployment: Deployment, slots: Num) -> list[Memory]:
        requests = self.requests
        share = deployment.shares(requests.batch)[0]
        given, tokens = requests.input_tokens, requests.input_tokens + requests.output_tokens
        last = deployment.next_step(share, given, tokens - 1.0, requests.media)
        return memories_of(
            stages_of(deployment, [deployment.prompt_step(share, given, requests.media), last]),
            sequences=Sequences(
                replica=deployment.sequences(requests.batch),
                micro_batch=share,
                micro_batches=deployment.most_micro_batches,
                replicas=deployment.parallelism.dp * deployment.parallelism.attention_replicas,
            ),
            kept=kept_of(deployment.model, given, tokens, requests.media),
            slots=slots,
            capacity=taken_bytes(deployment),
        )
