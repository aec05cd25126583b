"""Base model, dynamic adapter and merged adapter side by side, and when merging pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphsim.cost.base import CostModel
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.models.loading import load_model
from graphsim.ops.precision import Precision
from graphsim.result import Estimate
from graphsim.simulation import REFERENCE, EngineRef, HardwareRef, ModelRef, estimate_of, simulate
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd


def compare_lora(
    model: ModelRef,
    hardware: HardwareRef,
    batch: Num = 1,
    input_tokens: Num = 512,
    output_tokens: Num = 128,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef = REFERENCE,
) -> pd.DataFrame:
    """One row each for `base`, `dynamic` and `merge`, one scenario.

    overhead: latency over the base model's, minus 1
    break_even_tokens, break_even_requests: generated tokens, or batches of requests, after which the one-time merge
    has cost less than applying the adapter dynamically; infinite where it never does
    Further columns: ttft_s, tpot_s, latency_s, one_time_s (seconds), tokens_per_s, memory_bytes, adapters_bytes (per
    device) and fits. Other arguments are those of `simulate`.
    Raises ConfigError for arrays of scenarios, and whatever `simulate` raises.
    """
    estimates = strategies(
        model, hardware, batch, input_tokens, output_tokens, parallelism, lora, precision, cost, engine
    )
    return comparison(estimates, batch, output_tokens)


def comparison(estimates: Mapping[str, Estimate], batch: Num, output_tokens: Num) -> pd.DataFrame:
    """The rows of `compare_lora` for estimates of the same requests."""
    from graphsim.display.table import Table

    if any(np.size(estimate.latency_s) > 1 for estimate in estimates.values()):
        raise ConfigError("compare_lora compares the strategies of one scenario, found arrays of scenarios")
    base, merge = estimates["base"], estimates.get("merge")
    rows = []
    for name, estimate in estimates.items():
        saved = estimate.latency_s - merge.latency_s if merge else 0.0
        batches = merge.one_time_s / saved if merge and name == "dynamic" and saved > 0 else np.inf
        rows.append(
            {
                "strategy": name,
                "ttft_s": estimate.ttft_s,
                "tpot_s": estimate.tpot_s,
                "latency_s": estimate.latency_s,
                "tokens_per_s": estimate.tokens_per_s,
                "one_time_s": estimate.one_time_s,
                "overhead": estimate.latency_s / base.latency_s - 1.0,
                "memory_bytes": estimate.memory.total_bytes,
                "adapters_bytes": estimate.memory.adapters_bytes,
                "fits": estimate.memory.fits,
                "break_even_tokens": batches * output_tokens * batch if name == "dynamic" else np.nan,
                "break_even_requests": batches * batch if name == "dynamic" else np.nan,
            }
        )
    return Table(rows).set_index("strategy")


def strategies(
    model: ModelRef,
    hardware: HardwareRef,
    batch: Num = 1,
    input_tokens: Num = 512,
    output_tokens: Num = 128,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef = REFERENCE,
) -> dict[str, Estimate]:
    """The estimates behind `compare_lora`, by strategy; no `merge` of a variant that cannot be merged."""
    config = load_model(model)
    lora = lora or config.lora_config or LoraConfig()
    if not isinstance(lora, LoraConfig):
        raise ConfigError(f"lora = {lora!r} is not a LoraConfig")
    variants = {"base": replace(lora, enabled=False), **_both(lora)}
    return {
        name: simulate(
            config, hardware, batch, input_tokens, output_tokens, parallelism, variant, precision, cost, engine
        )
        for name, variant in variants.items()
    }


def _both(lora: LoraConfig) -> dict[str, LoraConfig]:
    names = ("dynamic",) if lora.kind.unmerged else ("dynamic", "merge")
    return {name: replace(lora, enabled=True, strategy=name) for name in names}


def one_scenario(lora: LoraConfig, *sizes: Num) -> None:
    """Raise ConfigError for arrays of scenarios, which have no single answer."""
    if any(np.size(value) > 1 for value in (*sizes, *(getattr(lora, name) for name in _ARRAYS))):
        raise ConfigError("the strategies of one scenario are compared at a time, found arrays of scenarios")


_ARRAYS = ("rank", "active_adapters", "adapter_share", "max_loras", "max_lora_rank")


def strategies_of(estimate: Estimate, lora: LoraConfig | None = None) -> dict[str, Estimate]:
    """The same requests on the same deployment with no adapter, a dynamic one and a merged one.

    lora: the adapter, by default the estimate's own, or a common one (rank 16 on attention and MLP) where it has none.
    Raises ConfigError if the estimate does not say what it simulated, or the adapter matches nothing.
    """
    inference = estimate.inference
    if inference is None:
        raise ConfigError("the estimate does not say what was simulated; use the one that simulate() returns")
    lora = lora or inference.deployment.lora or LoraConfig()
    adapters = {"base": None, **_both(lora)}
    deployments = {name: replace(inference.deployment, lora=adapter) for name, adapter in adapters.items()}
    return {
        name: estimate_of(replace(inference, deployment=deployment), estimate.cost_model)
        for name, deployment in deployments.items()
    }
