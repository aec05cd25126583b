"""Intervals of a page's times: at its initial state, and along each control starting there.

An interval comes from the residuals of a step's kernels (`deployment/intervals.py`) and has no short formula, so the
page stores the ends at the states that `gs.simulate` was called for, and shows none elsewhere.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.refusals import reasons_of
from graphsim.deployment.scenarios import take
from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.result import COVERAGE
from graphsim.simulation import priced

FIGURES = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s")
"""Figures with intervals on a page."""

_REQUESTS = ("batch", "input_tokens", "output_tokens")


def bands_of(deployment: Deployment, requests: Requests, options: dict[str, list[float]]) -> dict[str, Any]:
    """Intervals of a deployment at its initial requests: the ends at each slider position, by control and figure.

    A refused position has None. A control with a position that has no interval is left out. `missing` gives the reason
    if there are no intervals at all.
    """
    found: dict[str, Any] = {}
    missing = priced(Inference(deployment=deployment, requests=requests)).uncertainty.missing
    for name, places in {} if missing else options.items():
        asked = _along(deployment, requests, name, places)
        with suppress(ConfigError):
            found |= {} if asked is None else {name: _ends(*asked, len(places))}
    return {"missing": missing, "over": found}


def _along(
    deployment: Deployment, requests: Requests, name: str, places: list[float]
) -> tuple[Deployment, Requests] | None:
    """Deployment and requests with all positions of a control; None if it has no effect on this deployment."""
    values = np.array(places)
    changes: Any = {name: values}
    if name in _REQUESTS:
        return deployment, Requests(**{field: getattr(requests, field) for field in _REQUESTS} | {name: values})
    if name in Parallelism.__slots__:
        return replace(deployment, parallelism=replace(deployment.parallelism, **changes)), requests
    lora = deployment.adapter
    if lora is None or name not in LoraConfig.__slots__ or len(places) < 2:
        return None
    return replace(deployment, lora=replace(lora, **changes)), requests


def _ends(deployment: Deployment, requests: Requests, count: int) -> dict[str, list[Any]]:
    """Low and high end of each figure at each position; None at refused positions."""
    allowed = np.flatnonzero(reasons_of(deployment, requests, (count,))[1])
    ends: dict[str, list[Any]] = {name: [None] * count for name in FIGURES}
    if len(allowed):
        inference = Inference(deployment=deployment, requests=requests)
        estimate = priced(take(inference, allowed))
        for name in FIGURES:
            low, high = (np.broadcast_to(end, allowed.shape) for end in estimate.interval(name, COVERAGE))
            for at, pair in zip(allowed, zip(low.tolist(), high.tolist(), strict=True), strict=True):
                ends[name][at] = pair
    return ends
