"""What the formulas of a deployment are functions of: each input's unit, bounds and usual value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from graphsim.compile.symbols import CONTEXT, numbers_of
from graphsim.cost.rates import rates_of
from graphsim.deployment.inference import Inference
from graphsim.deployment.parallelism import MOST_DEVICES
from graphsim.deployment.scenarios import MOST
from graphsim.hardware import LEAST_RATE, MOST_LATENCY_S
from graphsim.lora.matching import MAX_RANK


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A variable of recorded formulas.

    least, most: the values that the library takes; whole: only whole numbers among them
    default: the value of the inference that was recorded, of its first scenario where there are many
    """

    name: str
    unit: str
    least: float
    most: float
    default: float
    whole: bool = True


_Bounds = tuple[str, float, float, bool]
"""Unit, least and most value, and whether they are whole."""

_OWN: dict[str, _Bounds] = {
    "batch": ("sequences", 1, MOST, True),
    "input_tokens": ("tokens", 1, MOST, True),
    "output_tokens": ("tokens", 1, MOST, True),
    CONTEXT: ("tokens", 0, MOST, True),
    "dp": ("replicas", 1, MOST_DEVICES, True),
    "alpha": ("", 0, 1e9, False),
    "adapter_share": ("of all tokens", 0, 1, False),
    "active_adapters": ("adapters", 0, 1e6, False),
    "max_loras": ("adapters", 0, 1e6, True),
    "max_lora_rank": ("", 0, MAX_RANK, True),
    "group_size": ("weights", 1, 1e9, True),
    "invocation_tokens": ("tokens", 0, 1e9, True),
}

_RATES: dict[str, _Bounds] = {
    "bytes_per_s": ("bytes/s", LEAST_RATE, np.inf, False),
    "latency_s": ("s", 0, MOST_LATENCY_S, False),
    "launch_s": ("s", 0, MOST_LATENCY_S, False),
    "bytes": ("bytes", 0, np.inf, False),
    "hz": ("Hz", LEAST_RATE, np.inf, False),
}
"""By the end of a rate's name; any other one is a peak."""

_PEAK: _Bounds = ("flop/s", LEAST_RATE, np.inf, False)


def manifest_of(inference: Inference, names: Iterable[str]) -> tuple[Input, ...]:
    """The inputs of some names, in the order of an inference's numbers, then of its device's rates.

    names: variables that formulas depend on
    """
    values = {**numbers_of(inference), CONTEXT: inference.requests.input_tokens, **rates_of(inference.hardware)}
    chosen = set(names)
    return tuple([_input(inference, name, value) for name, value in values.items() if name in chosen])


def _input(inference: Inference, name: str, value: object) -> Input:
    unit, least, most, whole = _bounds(inference, name)
    return Input(
        name=name, unit=unit, least=least, most=most, whole=whole,
        default=float(np.ravel(np.asarray(value, dtype=float))[0]),
    )  # fmt: skip


def _bounds(inference: Inference, name: str) -> _Bounds:
    lora = inference.deployment.adapter
    if name.startswith("device."):
        return next((bounds for end, bounds in _RATES.items() if name.endswith(end)), _PEAK)
    if lora is not None and (name == "rank" or name.startswith("rank_pattern.")):
        return ("", 0, lora.kind.most, name != "rank" or not lora.mixed_ranks)
    return _OWN[name]
