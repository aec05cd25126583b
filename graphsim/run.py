"""One deployment on one device under one batch of requests: the passes in order, and what they yield."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from graphsim.cost.base import CostModel, annotate
from graphsim.hardware import Hardware
from graphsim.integrate import sum_steps, sum_steps_many
from graphsim.memory import Memory, memory_of
from graphsim.ops import Op, Repeat
from graphsim.passes.pipeline import pipeline
from graphsim.program import Deployment
from graphsim.scenarios import count, scenarios_in, take
from graphsim.schedule import makespan_s
from graphsim.units import Num
from graphsim.workload import decode, prefill


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """A batch of requests alike; numbers may be arrays over scenarios."""

    batch: Num
    input_tokens: Num
    output_tokens: Num

    def __post_init__(self) -> None:
        """Raise ConfigError for anything but whole numbers of at least 1."""
        for name in ("batch", "input_tokens", "output_tokens"):
            object.__setattr__(self, name, count(name, getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One deployment on one device under one batch of requests.

    tolerance: of the sum over a growing context, where there are many scenarios (see integrate)
    """

    deployment: Deployment
    hardware: Hardware
    requests: Requests
    price: CostModel
    tolerance: float = 1e-9

    @property
    def micro_batches(self) -> int:
        """Micro-batches that the pipeline works on."""
        return self.deployment.micro_batches(self.requests.batch)

    def prefill_graph(self) -> nx.DiGraph:
        """The annotated prompt step."""
        graph = self.deployment.prefill(self.requests.batch, self.requests.input_tokens, self.micro_batches)
        return annotate(graph, self.hardware, self.price)

    def decode_graph(self) -> nx.DiGraph:
        """The annotated decode step at the mean context of the generation."""
        mean = self.requests.input_tokens + np.maximum(self.requests.output_tokens - 2.0, 0.0) / 2.0
        graph = self.deployment.decode(self.requests.batch, mean, self.micro_batches)
        return annotate(graph, self.hardware, self.price)

    def ttft_s(self) -> Num:
        """Time of the prompt step."""
        return makespan_s(self.prefill_graph())

    def generation_s(self) -> Num:
        """Time of all decode steps behind the first token; of one step where there is no further token."""
        steps = np.maximum(self.requests.output_tokens - 1.0, 1.0)
        first = self.requests.input_tokens
        scenarios = scenarios_in(self.requests, self.deployment, self.hardware)
        if scenarios is None:
            return sum_steps(lambda contexts, _: self.step_s(contexts), float(first), float(steps))

        def step(contexts: NDArray[np.float64], rows: NDArray[np.intp] | None) -> Num:
            return (self if rows is None else take(self, rows)).step_s(contexts)

        every = np.zeros(scenarios)
        return sum_steps_many(step, first + every, steps + every, self.tolerance)

    def step_s(self, context: Num) -> Num:
        """Time per decode step at given contexts.

        Through a pipeline, a step recurs after the longer of one micro-batch's way through all stages
        and the slowest stage's work on all micro-batches.
        """
        m = self.micro_batches
        phase = decode(self.deployment.share(self.requests.batch, m), context)
        stages = [annotate(stage, self.hardware, self.price) for stage in self.deployment.stages(phase)]
        if len(stages) == 1:
            return makespan_s(stages[0])
        reach = self.deployment.parallelism.tp * self.deployment.parallelism.pp
        way = annotate(pipeline(self.deployment.stages(phase), 1, reach), self.hardware, self.price)
        slowest: Num = 0.0
        for stage in stages:
            slowest = np.maximum(slowest, makespan_s(stage))
        return np.maximum(makespan_s(way), m * slowest)

    def one_time_s(self) -> Num:
        """Time of the one-time nodes, one after another; stages work side by side."""
        total: Num = 0.0
        phase = decode(1.0, 1.0)
        for stage in self.deployment.stages(phase):
            graph = annotate(stage, self.hardware, self.price)
            total = np.maximum(total, _one_time_s(graph))
        return total

    def memory(self) -> Memory:
        """Memory per device at the end of the generation."""
        m = self.micro_batches
        share = self.deployment.share(self.requests.batch, m)
        last = self.requests.input_tokens + self.requests.output_tokens - 1.0
        lora = self.deployment.lora
        slots = 0.0 if lora is None else np.maximum(lora.max_loras, lora.active_adapters)
        return memory_of(
            self.deployment.stages(prefill(share, self.requests.input_tokens)),
            self.deployment.stages(decode(share, last)),
            batch=self.requests.batch,
            micro_batches=m,
            slots=slots,
            capacity=self.hardware.memory_bytes,
        )


def _one_time_s(graph: nx.DiGraph) -> Num:
    total: Num = 0.0
    for _, node in graph.nodes(data=True):
        op: Op = node["op"]
        if isinstance(op, Repeat):
            total = total + op.times * _one_time_s(op.body)
        elif op.once:
            total = total + node["latency_s"]
    return total
