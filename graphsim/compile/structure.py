"""The structure of an inference's graphs and prices, as parts of a key for `Memo`, without its variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from graphsim.compile.symbols import SHAPING
from graphsim.cost.base import Trusted
from graphsim.cost.calibrated import Prices
from graphsim.cost.rates import has_many_rates, kind_of, rates_of, with_rates
from graphsim.cost.roofline import roofline
from graphsim.cost.users import UsersCost
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference
from graphsim.deployment.scenarios import has_arrays
from graphsim.symbolic.substitute import names_of


def recordable(inference: Inference) -> bool:
    """Whether the numbers that determine a graph's structure are single values."""
    parallelism, lora = inference.deployment.parallelism, inference.deployment.lora
    shaping = [getattr(parallelism, name) for name in ("tp", "ep", "sp", "cp")]
    shaping += [getattr(lora, name) for name in SHAPING] if lora else []
    device = inference.hardware
    if has_many_rates(device) and has_variable_rates(inference):
        device = with_rates(device, dict.fromkeys(rates_of(device), 0.0))
    return not any(map(np.ndim, shaping)) and not has_arrays(device)


def has_variable_rates(inference: Inference) -> bool:
    """Whether prices are formulas of the device's rates; a user's cost function may read any field of a device."""
    price = inference.price
    return price is roofline or (isinstance(price, Trusted) and price.of_rates)


def structure_of(inference: Inference) -> list[Any]:
    """Everything that determines the structure of an inference's graph and prices, without its variables."""
    return [repr(inference.requests.media), *shape_of(inference.deployment)]


def kind_of_prices(inference: Inference, families: Iterable[str]) -> tuple[Any, ...]:
    """Everything that determines the structure of its price formulas, except the device's rates.

    families: the cost families whose fits its prices depend on
    """
    price = inference.price
    return price.structure(families) if isinstance(price, Prices) else (*kind_of(inference.hardware), price)


def shape_of(deployment: Deployment) -> list[Any]:
    """The fields of a deployment that determine the structure of graphs and prices."""
    price = deployment.price
    prices = price.rests_on() if isinstance(price, UsersCost) else [price]
    return [deployment.device, *prices, *graph_of(deployment)]


def graph_of(deployment: Deployment) -> list[Any]:
    """The fields of a deployment that determine the structure of graphs."""
    parts: list[Any] = []
    for thing in (deployment, deployment.model, deployment.precision, deployment.parallelism, deployment.adapter):
        if thing is not None:
            adapter = thing is deployment.adapter
            shaping = _shaping(type(thing))  # type: ignore[arg-type]
            parts += [_shape(getattr(thing, name), kind, adapter and name not in SHAPING) for name, kind in shaping]
    for own in deployment.passes:
        kind: Any = type(own)
        parts += [kind, *[getattr(own, name) for name in names_of(kind)]]
    return parts


@cache
def _shaping(kind: type) -> tuple[tuple[str, Any], ...]:
    """Names and types of the fields that may determine a graph's structure."""
    return tuple([(field.name, field.type) for field in fields(kind) if field.name not in _NOT_SHAPING])


_NOT_SHAPING = {
    "model",
    "hardware",
    "precision",
    "parallelism",
    "lora",
    "lora_config",
    "cost",
    "passes",
    "dp",
    "document",
}
"""Fields whose own fields are used instead, and the degree that only divides the batch."""


def _shape(value: Any, kind: Any, adapter: bool) -> Any:
    """A field's part of a graph's structure: nothing for an adapter's numbers, only the names for mappings of these."""
    if kind == "Num":
        return None if adapter else float(value)
    if isinstance(value, Mapping) and kind != "Mapping[str, Num]":
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list | Mapping) else value
