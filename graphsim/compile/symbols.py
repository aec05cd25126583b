"""The numbers of an inference: their values by name, and the same inference with symbols instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphsim.compile.prices import price_formulas
from graphsim.cost.calibrated import Prices
from graphsim.cost.rates import has_many_rates, rates_of, with_rates
from graphsim.deployment.inference import Inference
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.substitute import numeric_fields, with_fields

INPUT, OUTPUT, CONTEXT = "input_tokens", "output_tokens", "context"

SHAPING = ("blocks",)
"""Numbers of an adapter that the passes check against the model's sizes, so they must be actual values."""


def numbers_of(inference: Inference) -> dict[str, Any]:
    """The values of an inference's variables, by name; including the rates of its device if they are arrays."""
    requests, deployment = inference.requests, inference.deployment
    inputs = {name: getattr(requests, name) for name in ("batch", INPUT, OUTPUT)}
    inputs["dp"] = deployment.parallelism.dp
    if has_many_rates(inference.hardware):
        inputs |= rates_of(inference.hardware)
    return inputs | {name: value for name, value, _ in _adapter(inference)}


def _adapter(inference: Inference) -> list[tuple[str, Any, tuple[str, str]]]:
    """The numbers of the adapter: variable, value, and location (field, key of a mapping)."""
    lora = inference.deployment.adapter
    found: list[tuple[str, Any, tuple[str, str]]] = []
    for name, value in (numeric_fields(lora) if lora else {}).items():
        if name in SHAPING:
            continue
        if isinstance(value, Mapping):
            found += [(f"{name}.{key}", entry, (name, key)) for key, entry in value.items()]
        else:
            found.append((name, value, (name, "")))
    return found


def points_of(inference: Inference) -> list[dict[str, float]]:
    """Values of all variables of a recording: the inference's own, and those of a short and of a long step."""
    own = {name: float(np.ravel(value)[0]) for name, value in numbers_of(inference).items()}
    return [
        {**own, CONTEXT: own[INPUT], **_step(2.0, 32.0)},
        {**own, "batch": 1.0, INPUT: 1.0, CONTEXT: 1.0, **_step(1.0, 1.0)},
        {**own, "batch": 64.0 * own["batch"], INPUT: 4096.0, CONTEXT: 4096.0, **_step(64.0, 4096.0)},
    ]


def _step(sequences: float, tokens: float) -> dict[str, float]:
    """The variables of a compiled step of equally many prompts and generating sequences, all of one length."""
    return {
        "prompts": sequences, "prompt_tokens": sequences * tokens, "prompts_ending": sequences,
        "prompt_pairs": sequences * tokens * (tokens + 1.0) / 2.0, "prompt_rows": sequences * tokens,
        "generating": sequences, "cache_rows": sequences * (tokens + 1.0),
    }  # fmt: skip


def constants_of(inference: Inference) -> dict[str, float]:
    """The fitted constants of an inference's prices, by the names of `Prices.constants`; none under other prices."""
    return inference.price.constants if isinstance(inference.price, Prices) else {}


def with_symbols(inference: Inference, tape: Tape) -> Inference:
    """The inference with symbols for its numbers, whose prices are recorded."""
    deployment = inference.deployment
    lora = deployment.lora
    if deployment.adapter is not None:
        changes: dict[str, Any] = {}
        for name, _, (field, key) in _adapter(inference):
            if key:
                changes.setdefault(field, {})[key] = tape.variable(name)
            else:
                changes[field] = tape.variable(name)
        lora = with_fields(deployment.adapter, changes)
    parallelism = with_fields(deployment.parallelism, {"dp": tape.variable("dp")})
    symbolic = with_fields(deployment, {"parallelism": parallelism, "lora": lora})
    requests = with_fields(inference.requests, {name: tape.variable(name) for name in ("batch", INPUT, OUTPUT)})
    return on_device_of(inference, replace(inference, deployment=symbolic, requests=requests), tape)


def on_device_of(
    inference: Inference, symbolic: Inference, tape: Tape, *, rates: bool = False, constants: bool = False
) -> Inference:
    """Symbols of one inference on the device of another one of the same structure, with its prices.

    rates, constants: whether those of the device and of its prices are symbols too
    """
    device = inference.hardware
    if rates:
        device = with_rates(device, {name: tape.variable(name) for name in rates_of(device)})
    price = inference.price
    if constants and isinstance(price, Prices):
        price = price.with_constants({name: tape.variable(name) for name in price.constants})
    price = price_formulas(price, tape, points_of(inference))
    return replace(symbolic, deployment=with_fields(symbolic.deployment, {"hardware": device, "cost": price}))
