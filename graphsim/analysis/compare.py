"""Comparison of base model, dynamic adapter and merged adapter, and when merging pays off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphsim.cost.base import CostModel
from graphsim.deployment.arguments import inference_of
from graphsim.deployment.deployment import Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.inference import Inference
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.graph import Pass
from graphsim.lora.config import LoraConfig
from graphsim.models.media import Media
from graphsim.ops.precision import Precision
from graphsim.result import Estimate
from graphsim.simulation import estimate_of
from graphsim.speculation.estimate import speculated
from graphsim.speculation.speculation import Speculation, checked_speculation
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd


def compare_lora(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    batch: Num = 1,
    input_tokens: Num = 512,
    output_tokens: Num = 128,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef | None = None,
    passes: Sequence[Pass] = (),
    media: Media | None = None,
    speculation: Speculation | None = None,
) -> pd.DataFrame:
    """Compare `base`, `dynamic` and `merge` for one scenario, one row each.

    Columns: overhead (latency divided by the base model's, minus 1); break_even_tokens, break_even_requests (generated
    tokens, or batches of requests, after which the one-time merge has cost less than applying the adapter dynamically;
    infinite where it never does); ttft_s, tpot_s, latency_s, one_time_s (seconds), tokens_per_s, energy_per_token_j,
    memory_bytes, adapters_bytes (per device), fits, engine (whose kernels run) and caution (caveats on the times, such
    as an unmeasured device).
    Arguments are those of `simulate`; without an adapter, a common one is used (rank 16 on attention and MLP). A draft
    of `speculation` runs without an adapter, and its acceptance is assumed to be the same for all rows.
    Raises ConfigError for arrays of scenarios, and whatever `simulate` raises.
    """
    asked = checked_speculation(speculation)
    inference = inference_of(
        model, hardware, batch, input_tokens, output_tokens, parallelism=parallelism, lora=lora, precision=precision,
        cost=cost, engine=engine, passes=passes, media=media,
    )  # fmt: skip
    found = strategies(inference)
    if asked is not None:
        found = {name: speculated(estimate, asked) for name, estimate in found.items()}
    return comparison(found, inference.requests.batch, inference.requests.output_tokens)


def comparison(estimates: Mapping[str, Estimate], batch: Num, output_tokens: Num) -> pd.DataFrame:
    """The rows of `compare_lora` for estimates of the same requests."""
    from graphsim.display.table import Table

    if any(np.size(estimate.latency_s) > 1 for estimate in estimates.values()):
        raise ConfigError("compare_lora compares the strategies of one scenario; found arrays of scenarios")
    base, merge = estimates["base"], estimates.get("merge")
    rows = []
    for name, estimate in estimates.items():
        dynamic = name == "dynamic"
        batches = batches_to_pay(float(merge.one_time_s), estimate, merge) if merge and dynamic else np.inf
        rows.append(
            {
                "strategy": name,
                "ttft_s": estimate.ttft_s,
                "tpot_s": estimate.tpot_s,
                "latency_s": estimate.latency_s,
                "tokens_per_s": estimate.tokens_per_s,
                "one_time_s": estimate.one_time_s,
                "energy_per_token_j": estimate.energy_per_token_j,
                "overhead": estimate.latency_s / base.latency_s - 1.0,
                "memory_bytes": estimate.memory.total_bytes,
                "adapters_bytes": estimate.memory.adapters_bytes,
                "fits": estimate.memory.fits,
                "break_even_tokens": batches * output_tokens * batch if dynamic else np.nan,
                "break_even_requests": batches * batch if dynamic else np.nan,
                "engine": estimate.engine,
                "caution": estimate.caution,
            }
        )
    return Table(rows).set_index("strategy")


def batches_to_pay(once_s: float, dynamic: Estimate, merge: Estimate) -> float:
    """Batches of requests after which merging has cost less than applying the adapter dynamically; inf if never.

    once_s: one-time cost of merging in seconds
    dynamic, merge: estimates of one batch with each strategy
    """
    saved_s = float(dynamic.latency_s) - float(merge.latency_s)
    return once_s / saved_s if saved_s > 0 else np.inf


def strategies(inference: Inference) -> dict[str, Estimate]:
    """The same requests without an adapter, with a dynamic and with a merged one.

    There is no `merge` if the variant cannot be merged, nor for several adapters: merged weights contain only one.

    The adapter is the deployment's, or a common one (rank 16 on attention and MLP) where it has none.
    """
    deployment = inference.deployment
    lora = replace(deployment.lora or LoraConfig(), enabled=True)
    several = bool(np.any(np.greater(lora.active_adapters, 1.0 + 1e-9)))
    apart = lora.kind.unmergeable(deployment.precision.of_weights)
    names = ("dynamic",) if apart or several else ("dynamic", "merge")
    adapters = {"base": None, **{name: replace(lora, strategy=name) for name in names}}
    asked = {name: replace(deployment, lora=adapter) for name, adapter in adapters.items()}
    return {name: estimate_of(replace(inference, deployment=one)) for name, one in asked.items()}


def one_scenario(inference: Inference) -> None:
    """Raise ConfigError for arrays of scenarios, which have no single answer."""
    if (inference.scenarios or 1) > 1:
        raise ConfigError("strategies are compared for one scenario at a time; found arrays of scenarios")


def strategies_of(estimate: Estimate, lora: LoraConfig | None = None) -> dict[str, Estimate]:
    """The same requests on the same deployment without an adapter, with a dynamic and with a merged one.

    estimate: an estimate of `simulate`
    lora: the adapter, by default the estimate's own, or a common one (rank 16 on attention and MLP) if it has none
    Raises ConfigError if the estimate does not state what it simulated, or the adapter matches nothing.
    """
    inference = estimate.inference
    if inference is None:
        raise ConfigError("the estimate does not say what was simulated; use the one that simulate() returns")
    if lora is None:
        return strategies(inference)
    return strategies(replace(inference, deployment=replace(inference.deployment, lora=lora)))
