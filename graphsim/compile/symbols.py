"""The numbers of an inference: their values by name, and the same inference with symbols in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from graphsim.compile.prices import price_formulas
from graphsim.deployment.inference import Inference, Requests
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.substitute import numeric_fields, with_fields

INPUT, OUTPUT = "input_tokens", "output_tokens"

SHAPING = ("blocks",)
"""Numbers of an adapter that the passes check against the model's sizes, and so have to know."""


def numbers_of(inference: Inference) -> dict[str, Any]:
    """The values of an inference's variables, by name."""
    requests, deployment = inference.requests, inference.deployment
    inputs = {name: getattr(requests, name) for name in ("batch", INPUT, OUTPUT)}
    inputs["dp"] = deployment.parallelism.dp
    return inputs | {name: value for name, value, _ in _adapter(inference)}


def _adapter(inference: Inference) -> list[tuple[str, Any, tuple[str, str]]]:
    """The numbers of the adapter: variable, value, and where it stands (field, key of a mapping)."""
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
    price = price_formulas(inference.price, tape)
    requests = with_fields(inference.requests, {f.name: tape.variable(f.name) for f in fields(Requests)})
    return replace(
        inference,
        deployment=with_fields(deployment, {"parallelism": parallelism, "lora": lora, "cost": price}),
        requests=requests,
    )
