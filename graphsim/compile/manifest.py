"""The inputs of a deployment's formulas: each input's unit, bounds and default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from graphsim.compile.given import ALLOWED
from graphsim.compile.sums import most_rank_rows
from graphsim.compile.symbols import CONTEXT, constants_of, numbers_of
from graphsim.cost.constants import PREFIX
from graphsim.cost.rates import rates_of
from graphsim.deployment.inference import Inference
from graphsim.deployment.parallelism import MOST_DEVICES
from graphsim.deployment.scenarios import MOST
from graphsim.hardware import LEAST_RATE, MOST_LATENCY_S
from graphsim.lora.matching import MAX_RANK
from graphsim.units import amount_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A variable of recorded formulas, or an argument of a compiled step.

    least, most: bounds of the allowed values
    whole: whether only whole numbers are allowed
    default: the value of the inference that was recorded, of its first scenario where there are many; for an argument
        of a step, the value if it is not given
    within: further bounds, which depend on other inputs
    otherwise: how a missing value follows from the others
    """

    name: str
    unit: str
    least: float
    most: float
    default: float
    whole: bool = True
    within: str = ""
    otherwise: str = ""


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
"""By the suffix of a rate's name; any other rate is a peak."""

_FITTED = {"_clocks": "clocks", "_bytes": "bytes", "_bytes_per_clock": "bytes/clock", "_s": "s"}
"""By the suffix of a fitted constant's name; any other constant is a factor, an exponent or a share."""

_PEAK: _Bounds = ("flop/s", LEAST_RATE, np.inf, False)


def inputs_of(inference: Inference) -> tuple[Input, ...]:
    """The inputs of an inference's own numbers, whether or not formulas depend on them."""
    return tuple([_input(inference, name, value) for name, value in numbers_of(inference).items()
                  if not name.startswith("device.")])  # fmt: skip


def manifest_of(inference: Inference, names: Iterable[str]) -> tuple[Input, ...]:
    """The inputs of some names, in the order of an inference's numbers, then of its device's rates, then of constants.

    names: variables that formulas depend on
    """
    values = {**numbers_of(inference), CONTEXT: inference.requests.input_tokens, **rates_of(inference.hardware)}
    chosen = set(names)
    if not chosen <= values.keys():
        values |= constants_of(inference)
    return tuple([_input(inference, name, value) for name, value in values.items() if name in chosen])


def inputs_of_step(configured: Mapping[str, float]) -> tuple[Input, ...]:
    """The arguments of a compiled step that are sums over its sequences.

    configured: the numbers of the deployment, those of a dynamic adapter among them where it has one
    """
    found = [_of_step(name, *about) for name, about in _STEP.items()]
    if "active_adapters" in configured:
        share, rank = configured["adapter_share"], configured["rank"]
        found += [
            _of_step("adapted_tokens", "tokens", f"{amount_text(share)} times all tokens of the step"),
            replace(_of_step("distinct_adapters", "adapters", ""), default=configured["active_adapters"]),
            replace(_of_step("rank_rows", "ranks", f"{amount_text(rank)} times adapted_tokens"),
                    within=most_rank_rows(configured["max_lora_rank"])),
        ]  # fmt: skip
    return tuple(found)


_STEP = {
    "prompt_tokens": ("tokens", ""),
    "prompts": ("sequences", "1, where there are any prompt_tokens"),
    "prompt_pairs": ("query-key pairs", "those of equal prompts without a past"),
    "prompt_rows": ("cache rows", "those of equal prompts with as many pairs"),
    "prompts_ending": ("sequences", "all prompts"),
    "generating": ("sequences", ""),
    "cache_rows": ("cache rows", "one for each of generating"),
}
"""Unit of each sum over the sequences of a step, and its default if that is not 0."""


def _of_step(name: str, unit: str, otherwise: str) -> Input:
    return Input(
        name=name, unit=unit, least=0.0, most=np.inf, default=0.0, whole=False, within=ALLOWED.get(name, ""),
        otherwise=otherwise,
    )  # fmt: skip


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
    if name.startswith(f"{PREFIX}."):
        return (next((unit for end, unit in _FITTED.items() if name.endswith(end)), ""), 0, np.inf, False)
    if lora is not None and (name == "rank" or name.startswith("rank_pattern.")):
        return ("", 0, lora.kind.most, name != "rank" or not lora.mixed_ranks)
    return _OWN[name]
