"""The rates of a page's devices and the sliders that scale them, offered only if all positions are exact.

An unmeasured device uses the constants of the most similar reference devices, which depend on its rates. The order of
similarity between two reference devices is monotonic along each rate, so checking the corners of the sliders' range
shows whether the same reference devices are used everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from graphsim.compile.lowered import lowered_of
from graphsim.compile.structure import has_variable_rates, kind_of_prices
from graphsim.cost.rates import rates_of, with_rates
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference, Requests
from graphsim.errors import GraphsimError
from graphsim.export.explore.deployments import Deployments
from graphsim.hardware import Hardware
from graphsim.symbolic.memo import Memo

SCALES = {
    "bandwidth": r"device\.memory_bytes_per_s",
    "peak": r"device\.(flops_per_s\..*|vector_flops_per_s)",
    "clock": r"device\.clock_hz",
    "launch": r"device\.(launch_s|eager_launch_s)",
    "link": r"device\.links\.\d+\.bytes_per_s",
}
"""Sliders, and patterns of the rates that each multiplies, which are named as in `graphsim.cost.rates.rates_of`."""

PLACES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Factors at the positions of a slider."""


def scale_of(rate: str) -> str:
    """The slider that multiplies a rate; "" if there is none."""
    return next((scale for scale, pattern in SCALES.items() if re.fullmatch(pattern, rate)), "")


def rates_among(deployments: Deployments, devices: Iterable[Hardware], requests: Requests) -> dict[str, Any]:
    """Rates by device, the slider of each rate, and the `engine/device` pairs for which sliders are not exact."""
    rates = {device.name: {name: float(rate) for name, rate in rates_of(device).items()} for device in devices}
    names = dict.fromkeys(name for own in rates.values() for name in own)
    first: dict[str, Deployment] = {}
    for choice, deployment in deployments.found.items():
        first.setdefault(f"{choice.engine}/{choice.device}", deployment)
    return {
        "rates": rates,
        "scales": {name: scale for name in names if (scale := scale_of(name))},
        "unscaled": [key for key, deployment in first.items() if not _is_exact(deployment, requests)],
    }


def _is_exact(deployment: Deployment, requests: Requests) -> bool:
    """Whether one formula gives the prices at every position of the sliders."""
    inference = Inference(deployment=deployment, requests=requests)
    graphs = lowered_of(inference)
    if graphs is None or not has_variable_rates(inference):
        return False
    families = graphs.families
    memo: Memo[object] = Memo(most=32)
    own = memo.get(kind_of_prices(inference, families), object)
    ends = PLACES[0], PLACES[-1]
    moving = ("bandwidth", "peak", "clock")
    try:
        corners = [dict(zip(moving, corner, strict=True)) for corner in product(ends, repeat=len(moving))]
        scaled = [_scaled(deployment, requests, scales) for scales in corners]
        return all(memo.get(kind_of_prices(other, families), object) is own for other in scaled)
    except GraphsimError:
        return False


def _scaled(deployment: Deployment, requests: Requests, scales: Mapping[str, float]) -> Inference:
    device = deployment.device
    rates = {name: rate * scales.get(scale_of(name), 1.0) for name, rate in rates_of(device).items()}
    other = Deployment(
        deployment.model, with_rates(device, rates), parallelism=deployment.parallelism,
        precision=deployment.precision, cost=deployment.cost, passes=deployment.passes, engine=deployment.engine,
        lora=deployment.lora,
    )  # fmt: skip
    return Inference(deployment=other, requests=requests)
