"""A measured configuration run again in a closed loop, at the prices of its deployment and its engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from graphsim.compile.step import CompiledStep, compile_step
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from graphsim.lora.host import EngineHost
from graphsim.lora.profile import load_profile
from graphsim.models.loading import load_model
from graphsim.ops.precision import Precision
from graphsim.serving.closed_loop import Answers, ClosedLoad, Scheduling, StepTimes, closed_loop, uniform_lengths
from graphsim.serving.prompt_pool import PromptPool
from graphsim.serving.step_tables import Sizes, StepTables
from graphsim.validation.served_rows import Pool, ServedRow
from graphsim.validation.servers import server_of
from graphsim.validation.validate import hardware_name

OF_STEPS = ("launch_s", "expert_layer_s", "overlap_power", "captured_prompt_tokens", "captured_prompt_share")
"""Settings of a host that the time of a step hangs on; of the others, requests wait longer or shorter."""

ENOUGH_REQUESTS = 4096
"""Requests after which a loop with very many clients ends: rounds are alike from the second on."""

COPIES = {
    "nvidia/DeepSeek-R1-0528-FP4-V2": "deepseek-ai/DeepSeek-R1-0528",
    "amd/DeepSeek-R1-0528-MXFP4-Preview": "deepseek-ai/DeepSeek-R1-0528",
}
"""Quantised copies of a model whose format a row states: by their names, the model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptSteps:
    """Servers that run prompts: how many at once, and their steps."""

    workers: int
    steps: StepTables

    def prompt_s(self, tokens: float) -> float:
        """Seconds of one prompt."""
        return self.steps.prompts_s(tokens, tokens * (tokens + 1.0) / 2.0, 1, 0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shared:
    """Steps of servers alike that share the sequences evenly."""

    steps: StepTables
    servers: int

    def generation_s(self, sequences: int, context: float) -> float:
        """Of the one that has most."""
        return self.steps.generation_s(-(-sequences // self.servers), context)

    def prompts_s(self, tokens: float, pairs: float, prompts: int, sequences: int, context: float) -> float:
        """Of a prompt that one of them runs."""
        return self.steps.prompts_s(tokens, pairs, prompts, -(-sequences // self.servers), context)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A row ready to be run, with any constants of the engine's host.

    prompts: servers that run these, where they are others
    host: of the engine as its start-up script sets it, but for the constants in question
    """

    row: ServedRow
    steps: StepTimes
    prompts: PromptSteps | None
    host: EngineHost
    chunk_tokens: float
    clients: int
    input_tokens: np.ndarray[Any, Any]
    output_tokens: np.ndarray[Any, Any]

    def answers(self, request_s: float | None = None) -> Answers:
        """The requests as the server answers them. request_s: in place of the host's own."""
        host = self.host
        load = ClosedLoad(
            clients=self.clients, input_tokens=self.input_tokens, output_tokens=self.output_tokens,
            request_s=host.request_s if request_s is None else request_s, token_s=host.token_s,
        )  # fmt: skip
        scheduling = Scheduling(
            chunk_tokens=self.chunk_tokens, cuts_prompts=host.chunked_prompts, mixes=host.mixed_steps,
            ahead=host.planned_ahead, receive_steps=int(host.receive_steps), hold_steps=int(host.batch_wait_steps),
            hold_share=host.batch_wait_share,
        )  # fmt: skip
        pool = None if self.prompts is None else PromptPool(self.prompts.workers, self.prompts.prompt_s)
        return closed_loop(self.steps, load, scheduling, pool)


def answers_of(row: ServedRow) -> Answers:
    """The requests of a row as its server answers them. Raises ConfigError as `prepared` does."""
    return prepared(row).answers()


def prepared(row: ServedRow, constants: Mapping[str, float] | None = None) -> Prepared:
    """A row with its deployment's steps.

    constants: of the engine's host, in place of its own
    Raises ConfigError for a row that cannot be simulated, saying why.
    """
    if row.problem:
        raise ConfigError(row.problem)
    if row.prompts is not None and not (row.prompts.workers and row.pool.workers):
        raise ConfigError("not simulated: how many servers run prompts, and how many generate, is not stated")
    device, name = hardware_name(row.gpu), COPIES.get(row.model, row.model)
    server = server_of(row, load_model(name), load_hardware(device))
    settings = {**server.settings, **(constants or {})}
    host = load_profile({"base": server.engine, "host": settings}).host
    timed = tuple(sorted((key, value) for key, value in settings.items() if key in OF_STEPS))
    steps = _compiled(name, device, row.pool, server.precision, server.engine, timed)
    shares = 1 if row.prompts else row.pool.replicas  # of one replica, as they run in step
    clients = max(1, -(-row.clients // shares))
    per_client = max(1, min(row.per_client, max(2, ENOUGH_REQUESTS // clients)))
    inputs, outputs = uniform_lengths(clients, per_client, row.input_tokens, row.output_tokens, row.range_ratio)
    sizes = Sizes(
        sequences=clients, prompt=float(inputs.mean()), context=row.input_tokens + row.output_tokens,
        chunk_tokens=server.chunk_tokens, mixes=host.mixed_steps, captured_tokens=host.captured_prompt_tokens,
        sampling_s=host.sampling_s if row.samples else 0.0,
    )  # fmt: skip
    tables: StepTimes
    apart = None
    if row.prompts is None:
        tables = StepTables(steps, sizes)
    else:
        servers = row.pool.workers * row.pool.replicas
        tables = Shared(steps=StepTables(steps, replace(sizes, sequences=-(-clients // servers))), servers=servers)
        prompts = _compiled(name, device, row.prompts, server.precision, server.engine, timed)
        alone = replace(sizes, sequences=1.0, mixes=False)
        apart = PromptSteps(workers=row.prompts.workers * row.prompts.replicas, steps=StepTables(prompts, alone))
    return Prepared(
        row=row, steps=tables, prompts=apart, host=host, chunk_tokens=server.chunk_tokens, clients=clients,
        input_tokens=inputs, output_tokens=outputs,
    )  # fmt: skip


@lru_cache(maxsize=128)
def _compiled(
    model: str, device: str, pool: Pool, precision: Precision, engine: str, settings: tuple[tuple[str, Any], ...]
) -> CompiledStep:
    """The steps of a deployment, whatever its engine refuses today: it has run."""
    deployment = Deployment(
        model, device, parallelism=Parallelism(tp=pool.tp, ep=pool.ep, pp=pool.pp), precision=precision,
        engine={"base": engine, "notes_only": True, "host": dict(settings)},
    )  # fmt: skip
    return compile_step(deployment)
