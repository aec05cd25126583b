"""Power and energy of a batch of requests: from the times of its steps, and what they ask of memory and matrix units.

Rates are means over a whole phase: what the bent share of the matrix units differs by within one, as its context grows,
is far below what the constants are good for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from graphsim.brief import figures_text
from graphsim.cost.power import Power, power_of
from graphsim.cost.roofline import matrix_peak
from graphsim.deployment.inference import Inference, Latencies
from graphsim.graph import walk
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activity:
    """What a step asks of one device: seconds of its memory at the full bandwidth, of its matrix units at the peak."""

    memory_s: Num
    compute_s: Num

    def __mul__(self, times: Num) -> Activity:
        return Activity(memory_s=self.memory_s * times, compute_s=self.compute_s * times)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activities:
    """Activities of the prompt step, and of a decode step at the mean context."""

    prefill: Activity
    decode: Activity


def op_activity(op: Op, hardware: Hardware) -> Activity:
    """The activity of one operation on a device. Raises HardwareError if it states no peak for a GEMM's format."""
    work = op.work()
    compute_s = work.flops / matrix_peak(op, hardware) if may_be_nonzero(work.flops) else 0.0
    return Activity(memory_s=work.memory_bytes / hardware.memory_bytes_per_s, compute_s=compute_s)


def activity_of(
    graph: nx.DiGraph, hardware: Hardware, stages: int = 1, each: Callable[[Op, Hardware], Activity] = op_activity
) -> Activity:
    """The activity of a step's graph on a device, as the mean over its pipeline stages.

    each: the activity of one operation. Raises HardwareError as `op_activity` does.
    """
    memory_s: Num = 0.0
    compute_s: Num = 0.0
    for _, op, times in walk(graph):
        if not op.once:
            found = each(op, hardware)
            memory_s, compute_s = memory_s + found.memory_s * times, compute_s + found.compute_s * times
    return Activity(memory_s=memory_s, compute_s=compute_s) * (1.0 / stages)


def activities_of(inference: Inference) -> Activities:
    """Activities of an inference's steps, from the passes. Raises HardwareError as `activity_of` does."""
    requests = inference.requests
    return Activities(
        prefill=activity_of(
            inference.deployment.prefill(requests.batch, requests.input_tokens, media=requests.media),
            inference.hardware, inference.deployment.parallelism.pp,
        ),
        decode=decode_activity(inference, inference.step_graph(inference.mean_context)),
    )  # fmt: skip


def decode_activity(
    inference: Inference, graph: nx.DiGraph, each: Callable[[Op, Hardware], Activity] = op_activity
) -> Activity:
    """Activity of a decode step, from the graph of its largest micro-batch; each micro-batch reads the weights again.

    each: as in `activity_of`
    """
    shares = inference.deployment.shares(inference.requests.batch)
    one = activity_of(graph, inference.hardware, inference.deployment.parallelism.pp, each)
    return one if len(shares) == 1 else one * sum((np.minimum(share, 1.0) for share in shares), start=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Energy:
    """Joules of a batch of requests on all devices, and watts of one of them. NaN where the power is not known.

    prefill_j, decode_j: of the prompt step, and of all steps after the first token
    per_token_j: joules for each generated token, prompts included
    prefill_watts, decode_watts: mean of one device over the phase
    watts: over both
    idle_watts, limit_watts: of one idle device, and its power limit
    origin: source of the constants
    """

    prefill_j: Num
    decode_j: Num
    per_token_j: Num
    prefill_watts: Num
    decode_watts: Num
    watts: Num
    idle_watts: Num
    limit_watts: Num
    origin: str

    def __repr__(self) -> str:
        figures = {name: value for name, value in self.to_dict().items() if name != "origin"}
        return figures_text("Energy", figures, self.origin)

    @property
    def total_j(self) -> Num:
        """Joules of the whole batch."""
        return self.prefill_j + self.decode_j

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"total_j": self.total_j}


UNKNOWN = Energy(
    **dict.fromkeys(
        ("prefill_j", "decode_j", "per_token_j", "prefill_watts", "decode_watts", "watts", "idle_watts", "limit_watts"),
        float("nan"),
    ),
    origin="not known: the device's file states no power",
)
"""Of a device without a stated power."""


def energy_of(times: Latencies, activities: Activities | None, hardware: Hardware, devices: Num) -> Energy:
    """The energy of a batch of requests: watts of each phase times its seconds times the devices.

    activities: None if the device states no peak for a format that is computed
    """
    power = power_of(hardware)
    if power is None or activities is None:
        return UNKNOWN
    tpot_s = times.tpot_s
    prefill_w = _watts(power, activities.prefill, times.ttft_s)
    decode_w = _watts(power, activities.decode, tpot_s)
    decode_s = np.where(np.greater(times.output_tokens, 1.0), 1.0, 0.0)[()] * times.generation_s
    prefill_j, decode_j = devices * prefill_w * times.ttft_s, devices * decode_w * decode_s
    total_j = prefill_j + decode_j
    return Energy(
        prefill_j=prefill_j, decode_j=decode_j, per_token_j=total_j / (times.batch * times.output_tokens),
        prefill_watts=prefill_w, decode_watts=decode_w, watts=total_j / (devices * times.latency_s),
        idle_watts=power.idle_w, limit_watts=power.limit_w, origin=power.origin,
    )  # fmt: skip


def _watts(power: Power, activity: Activity, seconds: Num) -> Num:
    return power.watts(activity.memory_s / seconds, activity.compute_s / seconds)
