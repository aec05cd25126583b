"""The simulation of a measured run on its engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError
from graphsim.lora.profile import load_profile
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import rules_of
from graphsim.serving.front import front_of
from graphsim.serving.loop import run as serve
from graphsim.serving.paging import PagedStore
from graphsim.serving.pricing import price_of
from graphsim.serving.step_price import StepPrice
from graphsim.serving.unified import unified_rules
from graphsim.validation.measured_run import MeasuredRun, Served
from graphsim.validation.routed import routed
from graphsim.validation.run_figures import Outcome, Replayed
from graphsim.validation.scrapes import told_later


@dataclass(frozen=True, eq=False)
class _Shared:
    """The inputs of a simulation, equal for parts of one run."""

    run: MeasuredRun

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shared) and self.run.run == other.run.run

    def __hash__(self) -> int:
        return hash(self.run.run)


def simulated(run: MeasuredRun) -> Outcome:
    """The requests of the run or part, as answered by its server. Raises ConfigError if it cannot be simulated."""
    if run.served is None:
        raise ConfigError(run.problem or "not simulated")
    whole = replayed(run.served) if run.run == run.id else _whole(_Shared(run))
    return Outcome(whole, run.of)


@lru_cache(maxsize=64)
def _whole(shared: _Shared) -> Replayed:
    """The whole of a run with several parts."""
    if shared.run.served is None:
        raise ConfigError(shared.run.problem)
    return replayed(shared.run.served)


def replayed(served: Served) -> Replayed:
    """The simulated run of the requests. Raises ConfigError if they cannot be served.

    The engine's checks of its settings only give notes, as the run is known to have worked.
    """
    deployment = _deployed(served)
    limits, table = EngineLimits(**served.limits), served.table()
    ranks = tuple(deployment.lora.mixed_ranks) if deployment.lora is not None else ()
    engine, blocks = deployment.engine, None
    if engine is not None and engine.scheduler.shares_pool and deployment.adapter is not None:
        rules, blocks = unified_rules(deployment, int(table.adapter.max()) + 1, limits, ranks)
    else:
        rules = rules_of(deployment, limits, ranks)
    if served.loaded:
        rules = replace(rules, adapters=replace(rules.adapters, preloaded=True))
    mean_prompt = float(table.input_tokens.mean())
    price = price_of(deployment, limits, ranks=ranks, mean_prompt=mean_prompt, samples=served.samples)
    loads = _loads(served, price)

    def store() -> AdapterStore | None:
        if blocks is not None:
            return PagedStore(rules.adapters, loads, blocks)
        return AdapterStore(rules.adapters, loads, ranks or None) if rules.adapters.max_loras else None

    front = front_of(deployment)
    if served.router is not None:
        log = routed(table, rules, price, served, front, store)
    else:
        log = serve(
            table, rules, price, client=served.client, concurrency=served.concurrency, front=front, store=store()
        )
    found = Replayed(table, log, rules.kv_blocks, served.client.cutoff_s)
    if served.scrapes is not None:
        told_later(table, log, found.steps[:, 0] + found.steps[:, 1], served.scrapes, log.end_s)
    return found


def _loads(served: Served, price: StepPrice) -> Callable[[int, bool], float]:
    first_s = served.first_load_s
    if first_s is None:
        return price.load
    return lambda adapter, from_disk: price.load(adapter, False) + (first_s if from_disk else 0.0)


SORTED_WORDS = 150_000.0
"""Vocabulary size behind the engines' `sampling_s` (Qwen3's and others), which is mostly sorting of logits."""


def _deployed(served: Served) -> Deployment:
    """The deployment that ran; the time of sampling is scaled by the vocabulary size."""
    engine = load_profile({"base": served.deployment["engine"], "notes_only": True})
    deployment = Deployment(**{**served.deployment, "engine": engine})
    if served.samples:
        shorter = engine.host.sampling_s * float(deployment.model.vocab_size) / SORTED_WORDS
        engine = replace(engine, host=replace(engine.host, sampling_s=shorter))
    return replace(deployment, engine=engine)
