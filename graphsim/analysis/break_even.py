"""When merging pays: cumulative time of the ways to serve an adapter, as a curve and as crossing points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.analysis.compare import one_scenario, strategies
from graphsim.analysis.lifecycle import Lifecycle, lifecycle
from graphsim.cost.base import CostModel
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.ops.precision import Precision
from graphsim.result import Estimate, plain
from graphsim.simulation import REFERENCE, EngineRef, HardwareRef, ModelRef
from graphsim.units import as_number, short

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """How much has to be served with one adapter before merging it costs less than applying it dynamically.

    Counted in generated tokens, in requests and in seconds of dynamic serving; infinite where it never does.
    switch_tokens: the same between two adapters that take turns in one merged model, per turn
    """

    tokens: float
    requests: float
    seconds: float
    switch_tokens: float
    merge_s: float
    switch_s: float
    saved_s_per_token: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name, for JSON."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


NEVER = BreakEven(
    tokens=np.inf, requests=np.inf, seconds=np.inf, switch_tokens=np.inf, merge_s=np.inf, switch_s=np.inf,
    saved_s_per_token=0.0,
)  # fmt: skip
"""Of an adapter that cannot be merged."""


def break_even(
    model: ModelRef,
    hardware: HardwareRef,
    batch: float = 1,
    input_tokens: float = 512,
    output_tokens: float = 128,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef = REFERENCE,
) -> BreakEven:
    """The crossing points for batches of such requests, one after another. Raises ConfigError as `simulate` does."""
    lora = lora or LoraConfig()
    asked = (model, hardware, batch, input_tokens, output_tokens, parallelism, lora, precision, cost, engine)
    one_scenario(lora, batch, input_tokens, output_tokens)
    estimates = strategies(*asked)
    if "merge" not in estimates:
        return NEVER
    life = lifecycle(model, hardware, lora, engine=engine, parallelism=parallelism, precision=precision, cost=cost)
    return crossing(estimates["dynamic"], estimates["merge"], life, float(batch), float(output_tokens))


def crossing(dynamic: Estimate, merge: Estimate, life: Lifecycle, batch: float, output_tokens: float) -> BreakEven:
    """The crossing points of two estimates of the same requests."""
    saved = float(dynamic.latency_s) - float(merge.latency_s)
    made = batch * output_tokens
    batches = float(life.merge_s) / saved if saved > 0 else np.inf
    turns = float(life.switch_s) / saved if saved > 0 else np.inf
    return BreakEven(
        tokens=batches * made, requests=batches * batch, seconds=batches * float(dynamic.latency_s),
        switch_tokens=turns * made, merge_s=float(life.merge_s), switch_s=float(life.switch_s),
        saved_s_per_token=saved / made,
    )  # fmt: skip


def break_even_curve(
    model: ModelRef,
    hardware: HardwareRef,
    tokens: Sequence[float] | None = None,
    tokens_per_turn: float | None = None,
    **asked: Any,
) -> pd.DataFrame:
    """Seconds to generate so many tokens, one row each: with a dynamic adapter, a merged one, and merged ones in turn.

    tokens: generated tokens, by default 25 from a hundredth of the break-even to a hundredfold
    tokens_per_turn: what each adapter generates before the next one is switched in; by default one batch of requests
    asked: the other arguments of `break_even`
    """
    import pandas as pd

    batch, output = float(asked.get("batch", 1)), float(asked.get("output_tokens", 128))
    engine, lora = asked.get("engine", REFERENCE), asked.get("lora") or LoraConfig()
    estimates = strategies(model, hardware, **asked)
    if "merge" not in estimates:
        raise ConfigError(
            f"break_even_curve: an adapter of variant '{lora.variant}' cannot be merged; {lora.kind.unmerged}"
        )
    kept = {name: asked[name] for name in ("parallelism", "precision", "cost") if name in asked}
    life = lifecycle(model, hardware, lora, engine=engine, **kept)
    found = crossing(estimates["dynamic"], estimates["merge"], life, batch, output)
    if tokens is None:
        middle = found.tokens if np.isfinite(found.tokens) else batch * output
        tokens = list(middle * np.logspace(-2, 2, 25))
    many = as_number(tokens)
    if many is None or np.any(np.asarray(many) < 0):
        raise ConfigError(f"tokens = {short(tokens)} is not allowed; expected numbers from 0")
    turn = tokens_per_turn or batch * output
    each = {name: float(estimates[name].latency_s) / (batch * output) for name in ("base", "dynamic", "merge")}
    amount = np.atleast_1d(np.asarray(many, dtype=float))
    turns = np.ceil(amount / turn)
    return pd.DataFrame(
        {
            "tokens": amount,
            "base_s": amount * each["base"],
            "dynamic_s": amount * each["dynamic"],
            "merge_s": found.merge_s + amount * each["merge"],
            "switching_s": found.merge_s + np.maximum(turns - 1.0, 0.0) * found.switch_s + amount * each["merge"],
        }
    )
