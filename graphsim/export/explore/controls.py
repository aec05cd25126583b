"""What a page offers to move, and what the engine refuses of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Requests
from graphsim.deployment.refusals import reasons_of
from graphsim.export.explore.deployments import Choice, Deployments
from graphsim.lora.config import LoraConfig

_FEW = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

OPTIONS: dict[str, tuple[float, ...]] = {
    "batch": _FEW,
    "input_tokens": tuple(float(2**e * odd) for e in range(4, 17) for odd in (1.0, 1.5)) + (131072.0,),
    "output_tokens": (1.0, *[2.0**e * odd for e in range(3, 13) for odd in (1.0, 1.5)], 8192.0),
    "dp": (1, 2, 4, 8, 16),
    "rank": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "active_adapters": (1, 2, 4, 8, 16, 32, 64, 128),
    "max_loras": (0, 1, 2, 4, 8, 16, 32, 64, 128),
    "adapter_share": (0.125, 0.25, 0.5, 0.75, 1.0),
}
"""The places of each slider; a value that was asked for, or typed, may lie between."""


def options_of(start: dict[str, Any], adapter: LoraConfig) -> dict[str, list[float]]:
    """The places of each slider, the value at the start among them; one where the adapter says more than a number."""
    fixed = {"rank": bool(adapter.mixed_ranks), "active_adapters": bool(adapter.shares)}
    return {
        name: sorted({*(() if fixed.get(name) else map(float, places)), float(start[name])})
        for name, places in OPTIONS.items()
    }


def refused_of(deployments: Deployments, requests: Requests, options: dict[str, list[float]]) -> dict[str, Any]:
    """For each engine the sentences on ranks by degree (`2/24`), on adapters and slots (`8/4/all`), the most tokens.

    Of the first device: what an engine refuses of adapters does not depend on the device.
    """
    engines = dict.fromkeys(choice.engine for choice in deployments.found)
    return {engine: _refused_by(engine, deployments, requests, options) for engine in engines}


def _refused_by(
    engine: str, deployments: Deployments, requests: Requests, options: dict[str, list[float]]
) -> dict[str, Any]:
    own = {choice: found for choice, found in deployments.found.items() if choice.engine == engine}
    first = next(iter(own)).device
    dynamic = {choice: found for choice, found in own.items()
               if choice.device == first and choice.strategy == "dynamic"}  # fmt: skip
    ranks: dict[str, str] = {}
    for choice, deployment in dynamic.items():
        ranks |= _ranks(choice, deployment, requests, options["rank"])
    slots = _slots(next(iter(dynamic.values()), None), requests, options)
    return {"ranks": ranks, "slots": slots, "longest": _longest(next(iter(own.values())))}


def refusals_among(deployment: Deployment, requests: Requests, shape: tuple[int, ...]) -> NDArray[np.object_]:
    """Why each scenario is not run; "" where it is, or where the engine only notes it."""
    reasons, simulated = reasons_of(deployment, requests, shape)
    return np.where(simulated, "", reasons)


def _with_lora(deployment: Deployment, lora: LoraConfig, **changes: Any) -> Deployment:
    return replace(deployment, lora=replace(lora, **changes))


def _ranks(choice: Choice, deployment: Deployment, requests: Requests, ranks: list[float]) -> dict[str, str]:
    lora = deployment.lora
    if lora is None or lora.mixed_ranks:
        return {}
    found = refusals_among(_with_lora(deployment, lora, rank=np.array(ranks)), requests, (len(ranks),))
    return {f"{choice.tp}/{rank:g}": str(reason) for rank, reason in zip(ranks, found, strict=True) if reason}


def _slots(deployment: Deployment | None, requests: Requests, options: dict[str, list[float]]) -> dict[str, str]:
    """By adapters, slots and whether all tokens are adapted: those of the base model may take a slot as well."""
    lora = None if deployment is None else deployment.lora
    if deployment is None or lora is None or lora.shares:
        return {}
    asked = list(product(options["active_adapters"], options["max_loras"], SHARES))
    active, slots, share = (np.array([entry[at] for entry in asked]) for at in range(3))
    changed = _with_lora(
        deployment, lora, active_adapters=active, max_loras=slots, adapter_share=np.array([*map(SHARES.get, share)])
    )
    found = refusals_among(changed, requests, (len(asked),))
    return {f"{a:g}/{s:g}/{part}": str(reason) for (a, s, part), reason in zip(asked, found, strict=True) if reason}


SHARES = {"all": 1.0, "some": 0.5}
"""Shares of the tokens that adapters serve, one of each kind."""


def _longest(deployment: Deployment) -> int:
    """The most tokens of a prompt and its answer together that the engine takes; 0 where it takes any."""

    def refused(total: int) -> bool:
        requests = Requests(batch=1, input_tokens=total - 1, output_tokens=1)
        return bool(refusals_among(deployment, requests, (1,))[0])

    low, high = 2, 2**24
    if not refused(high) or refused(low):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refused(middle) else (middle, high)
    return low
