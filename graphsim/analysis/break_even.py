"""When merging pays off: cumulative time of the strategies to serve an adapter, as a curve and as crossing points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.analysis.compare import batches_to_pay, one_scenario, strategies
from graphsim.analysis.lifecycle import lifecycle_of
from graphsim.brief import figures_text
from graphsim.deployment.arguments import inference_of, request_verb
from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.deployment.inference import Inference
from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.result import Estimate, plain
from graphsim.units import as_number, is_within, short

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """How much must be served with one adapter before merging it costs less than applying it dynamically.

    tokens, requests, seconds: generated tokens, batches of requests, seconds of dynamic serving; inf if merging never
        costs less
    switch_tokens: the same for two adapters that are merged alternately, in generated tokens per turn
    merge_s, switch_s: seconds to merge the adapter, or to replace a merged one by another
    saved_s_per_token: seconds that a merged adapter saves per generated token
    caution: caveats on the times, such as an unmeasured device
    """

    tokens: float
    requests: float
    seconds: float
    switch_tokens: float
    merge_s: float
    switch_s: float
    saved_s_per_token: float
    caution: str = ""

    def __repr__(self) -> str:
        names = [own.name for own in fields(self) if own.name != "caution"]
        return figures_text("BreakEven", {name: getattr(self, name) for name in names}, self.caution)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name for JSON."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


NEVER = BreakEven(
    tokens=np.inf, requests=np.inf, seconds=np.inf, switch_tokens=np.inf, merge_s=np.inf, switch_s=np.inf,
    saved_s_per_token=0.0,
)  # fmt: skip
"""The result for an adapter that cannot be merged, and for several adapters."""


@request_verb
def break_even(inference: Inference) -> BreakEven:
    """The break-even points between a dynamic and a merged adapter, for successive batches; NEVER if there is none.

    Arguments are those of `simulate`; without an adapter, a common one is used (rank 16 on attention and MLP).
    Raises ConfigError as `simulate` does, and for arrays of scenarios.
    """
    one_scenario(inference)
    return crossing(inference, strategies(inference))


def crossing(inference: Inference, estimates: Mapping[str, Estimate]) -> BreakEven:
    """The break-even points of an inference.

    estimates: estimates by strategy, as given by `strategies`
    """
    if "merge" not in estimates:
        return NEVER
    life, dynamic, merge = lifecycle_of(inference.deployment), estimates["dynamic"], estimates["merge"]
    batch = float(inference.requests.batch)
    made = batch * float(inference.requests.output_tokens)
    batches, turns = (batches_to_pay(float(once), dynamic, merge) for once in (life.merge_s, life.switch_s))
    return BreakEven(
        tokens=batches * made, requests=batches * batch, seconds=batches * float(dynamic.latency_s),
        switch_tokens=turns * made, merge_s=float(life.merge_s), switch_s=float(life.switch_s),
        saved_s_per_token=(float(dynamic.latency_s) - float(merge.latency_s)) / made, caution=dynamic.caution,
    )  # fmt: skip


def break_even_curve(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    tokens: Sequence[float] | None = None,
    tokens_per_turn: float | None = None,
    **asked: Any,
) -> pd.DataFrame:
    """Seconds to generate given numbers of tokens: with a dynamic adapter, a merged one, and several merged in turn.

    model, hardware: as in `simulate`
    tokens: numbers of generated tokens; by default 25 values from a hundredth to a hundred times the break-even
    tokens_per_turn: tokens that each adapter generates before the next one is switched in; by default one batch of
        requests
    asked: the other arguments of `break_even`
    Returns one row per number; the last column, caution, concerns the reliability of the times.
    """
    import pandas as pd

    inference = inference_of(model, hardware, **asked)
    estimates = strategies(inference)
    if "merge" not in estimates:
        lora = inference.deployment.lora or LoraConfig()
        formats = inference.deployment.precision.of_weights
        why = lora.kind.unmergeable(formats) or "merged weights serve one adapter, and here there are several"
        raise ConfigError(f"break_even_curve: adapters of variant '{lora.variant}' cannot be merged here: {why}")
    found, made = crossing(inference, estimates), float(inference.requests.batch * inference.requests.output_tokens)
    if tokens is None:
        middle = found.tokens if np.isfinite(found.tokens) else made
        tokens = list(middle * np.logspace(-2, 2, 25))
    many = as_number(tokens)
    if many is None or not is_within(many, 0.0, math.inf, whole=False):
        raise ConfigError(f"tokens = {short(tokens)} is not allowed; expected numbers from 0")
    each = {name: float(estimate.latency_s) / made for name, estimate in estimates.items()}
    amount = np.atleast_1d(np.asarray(many, dtype=float))
    turns = np.ceil(amount / (tokens_per_turn or made))
    merged_s = found.merge_s + amount * each["merge"]
    return pd.DataFrame(
        {
            "tokens": amount,
            "base_s": amount * each["base"],
            "dynamic_s": amount * each["dynamic"],
            "merge_s": merged_s,
            "switching_s": merged_s + np.maximum(turns - 1.0, 0.0) * found.switch_s,
            "caution": found.caution,
        }
    )
