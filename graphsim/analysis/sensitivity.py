"""Elasticities of the latency, from one evaluation with two scenarios per parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphsim.cost.base import Cost, CostModel, Trusted
from graphsim.deployment.arguments import request_verb
from graphsim.deployment.inference import Inference
from graphsim.deployment.scenarios import MOST
from graphsim.errors import ConfigError
from graphsim.hardware import Hardware
from graphsim.lora.matching import MAX_RANK
from graphsim.ops import Op
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

STEP = 0.02
"""Relative change of a rate in either direction: small compared to curvature, large compared to rounding errors."""

WHOLE_STEP = 0.125
"""Relative change of integers, at least by one: kernels pad one row more or less to the same tile."""

TOLERANCE = 1e-6
"""Tolerance of the sum over generated tokens, well below the effect of a change of a rate."""

REQUESTS = ("batch", "input_tokens", "output_tokens")
Array = NDArray[np.float64]


@request_verb
def sensitivity(inference: Inference) -> pd.DataFrame:
    """Elasticities of the latencies of one scenario: percent of change per percent of each parameter.

    Arguments are those of `simulate`. One row per parameter: memory_bandwidth, peak_flops (matrix and vector units) and
    launch (start of a kernel); link_bandwidth and link_latency where there are links; batch, input_tokens and
    output_tokens; rank (all ranks together) where there is a dynamic adapter.
    Columns: value (the parameter's current value; for peak_flops the matrix peak of the linear layers, for links the
    nearest one), then the elasticities ttft, tpot and latency. -1 means that doubling the parameter halves the time, 0
    that it has no effect. `attrs["caution"]` holds caveats on the times, such as an unmeasured device; "" if there are
    none.
    With roofline costs, the absolute elasticities of rates and launches add up to 1; calibrated costs have constants of
    their own.
    Computed by central differences: rates by two percent to either side, whole numbers by an eighth but at least one,
    within their bounds; ranks from half to double, as engines pad them to powers of two.
    Raises ConfigError for arrays of scenarios, and whatever `simulate` raises.
    """
    from graphsim.display.table import Table

    if inference.scenarios is not None:
        raise ConfigError("sensitivity takes one scenario; found arrays of scenarios")
    moves = _moves(inference)
    times = _times(_moved(inference, moves))
    rows = {name: {"value": move.value} for name, move in moves.items()}
    for column, time in times.items():
        low, high = np.reshape(time, (-1, 2)).T
        for i, (name, move) in enumerate(moves.items()):
            change = np.log(high[i] / low[i]) if low[i] > 0 else 0.0
            rows[name][column] = float(change / np.log(move.high / move.low))
    frame = Table.from_dict(rows, orient="index")
    frame.index.name = "parameter"
    frame.attrs["caution"] = inference.deployment.caution
    return frame


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """A parameter's value, and the factors by which it is changed."""

    value: float
    low: float = 1.0 - STEP
    high: float = 1.0 + STEP


def _moves(inference: Inference) -> dict[str, _Move]:
    """All parameters of the inference, by name."""
    device, lora = inference.hardware, inference.deployment.adapter
    rates: dict[str, Any] = {
        "memory_bandwidth": device.memory_bytes_per_s,
        "peak_flops": device.flops_per_s.get(inference.deployment.precision.compute)
        or max(device.flops_per_s.values()),
        "launch": device.launch_s,
    }
    if device.links:
        rates |= {"link_bandwidth": device.links[0].bytes_per_s, "link_latency": device.links[0].latency_s}
    moves = {name: _Move(value=float(value)) for name, value in rates.items()}
    moves |= {name: _whole(float(getattr(inference.requests, name)), MOST) for name in REQUESTS}
    if lora is not None and lora.strategy == "dynamic" and float(lora.rank) > 0:
        moves["rank"] = _octaves(float(lora.rank), float(lora.max_lora_rank) or MAX_RANK)
    return {name: move for name, move in moves.items() if move.low < move.high}


def _whole(value: float, most: float) -> _Move:
    step = max(round(WHOLE_STEP * value), 1.0)
    return _Move(value=value, low=max(value - step, 1.0) / value, high=min(value + step, most) / value)


def _octaves(value: float, most: float) -> _Move:
    return _Move(value=value, low=np.ceil(value / 2.0) / value, high=min(2.0 * value, most) / value)


def _moved(inference: Inference, moves: Mapping[str, _Move]) -> Inference:
    """The inference with two scenarios for each parameter, which differ from it in this parameter only."""
    by: dict[str, Array] = {}
    for name in ("memory_bandwidth", "peak_flops", "launch", "link_bandwidth", "link_latency", *REQUESTS, "rank"):
        by[name] = np.ones(2 * len(moves))
        if name in moves:
            at = 2 * list(moves).index(name)
            by[name][at : at + 2] = moves[name].low, moves[name].high
    deployment, lora = inference.deployment, inference.deployment.adapter
    if "rank" in moves and lora is not None:
        pattern = {name: np.round(rank * by["rank"]) for name, rank in lora.rank_pattern.items()}
        deployment = replace(
            deployment, lora=replace(lora, rank=np.round(lora.rank * by["rank"]), rank_pattern=pattern)
        )
    price = _Price(price=inference.price, launches=by["launch"])
    deployment = replace(deployment, hardware=_device(inference.hardware, by), cost=price)
    moved = {name: np.round(getattr(inference.requests, name) * by[name]) for name in REQUESTS}
    return replace(inference, deployment=deployment, requests=replace(inference.requests, **moved), tolerance=TOLERANCE)


def _device(device: Hardware, by: Mapping[str, Array]) -> Hardware:
    """The device with changed rates; launch overheads are changed in `_Price`."""
    links = tuple(
        replace(
            link, bytes_per_s=link.bytes_per_s * by["link_bandwidth"], latency_s=link.latency_s * by["link_latency"]
        )
        for link in device.links
    )
    return replace(
        device,
        memory_bytes_per_s=device.memory_bytes_per_s * by["memory_bandwidth"],
        flops_per_s={name: peak * by["peak_flops"] for name, peak in device.flops_per_s.items()},
        vector_flops_per_s=device.vector_flops_per_s * by["peak_flops"],
        eager_launch_s=device.eager_launch_s * by["launch"],
        links=links,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Price(Trusted):
    """A cost model with a changed launch overhead, regardless of the source of that overhead in the original model."""

    price: CostModel
    launches: Num

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        cost = self.price(op, hardware)
        return replace(cost, launch_s=cost.launch_s * self.launches)


def _times(inference: Inference) -> dict[str, Num]:
    """The latencies of all scenarios of the inference, by name."""
    times = inference.latencies(inference.ttft_s(), inference.generation_s())
    return {"ttft": times.ttft_s, "tpot": times.tpot_s, "latency": times.latency_s}
