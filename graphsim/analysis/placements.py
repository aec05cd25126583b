"""How to make a deployment and its requests fit: the fewest devices, and alternative changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.memory import Memory
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.refusals import require_runs
from graphsim.errors import GraphsimError
from graphsim.lora.config import LoraConfig
from graphsim.training.fits import largest
from graphsim.units import amount_text

COUNTS = (*range(1, 9), 12, 16, 24, 32, 48, 64)
"""Numbers of devices that are tried: products of tensor- and pipeline-parallel degree."""

MOST_SEQUENCES, MOST_TOKENS, MOST_SLOTS = 2**20, 2**26, 10**6
"""Upper limits of the search."""

PRECISIONS = ("fp8", "int4")
"""Narrower weight formats that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change with which the requests fit.

    flags: the change as command-line options, such as `--tp 2`
    deployment, requests: deployment and requests with the change
    """

    flags: str
    deployment: Deployment
    requests: Requests

    @property
    def text(self) -> str:
        """The change as part of a sentence: `on 2 devices with --tp 2`, `with --batch 8`."""
        return placed(self.deployment.parallelism) if self.flags.startswith(("--tp", "--pp")) else f"with {self.flags}"

    @property
    def memory(self) -> Memory:
        """Memory of one device with the change."""
        return Inference(deployment=self.deployment, requests=self.requests).memory()


def memory_or_none(deployment: Deployment, requests: Requests) -> Memory | None:
    """Memory of one device; None if the engine or the model does not support the configuration."""
    try:
        require_runs(deployment, requests)
        return Inference(deployment=deployment, requests=requests).memory()
    except GraphsimError:
        return None


def fewest_devices(inference: Inference) -> tuple[Parallelism, ...]:
    """The degrees on the fewest devices that fit, the most tensor-parallel ones first; empty if 64 do not suffice.

    If none of these is purely tensor-parallel, the lowest tensor-parallel degree that fits comes last. The other
    degrees are not changed.
    """
    deployment, requests = inference.deployment, inference.requests
    alone = memory_or_none(_over(deployment, 1, 1), requests)
    found: list[Parallelism] = []
    for count in COUNTS:
        if alone is not None and alone.weights_bytes / count > alone.capacity_bytes:
            continue  # no device can have less than an equal part of the weights
        for tp in range(count, 0, -1) if not found else (count,):
            if count % tp == 0 and _fits(deployment, requests, tp, count // tp):
                found.append(_over(deployment, tp, count // tp).parallelism)
        if any(one.pp == 1 for one in found):
            break
    return tuple(found)


def _fits(deployment: Deployment, requests: Requests, tp: int, pp: int) -> bool:
    """Whether the requests fit with these degrees; False if the model cannot be split this way."""
    if pp > deployment.model.num_layers:
        return False
    try:
        memory = memory_or_none(_over(deployment, tp, pp), requests)
    except GraphsimError:
        return False
    return memory is not None and bool(memory.fits)


def _over(deployment: Deployment, tp: int, pp: int) -> Deployment:
    """The deployment with other degrees. Raises InfeasibleError if the model cannot be split this way."""
    degrees = deployment.parallelism
    sp = tp if np.any(np.greater(degrees.sp, 1)) else 1
    return replace(deployment, parallelism=replace(degrees, tp=tp, pp=pp, sp=sp))


def degrees_flags(degrees: Parallelism) -> str:
    """Degrees as command-line options: `--tp 2 --pp 4`."""
    named = [f"--{name} {value:.0f}" for name, value in degrees_of(degrees).items() if value != 1]
    return " ".join(named) or "--tp 1"


def degrees_of(degrees: Parallelism) -> dict[str, int]:
    """The degrees that split a model, by name, including context parallelism if it is used."""
    found = {name: int(np.max(getattr(degrees, name))) for name in ("tp", "pp", "cp")}
    return found if found["cp"] > 1 else {name: found[name] for name in ("tp", "pp")}


def placed(degrees: Parallelism) -> str:
    """Degrees with their number of devices: `on 2 devices with --tp 2`."""
    count = float(np.max(degrees.devices))
    return f"on {amount_text(count)} device{'s' if count > 1 else ''} with {degrees_flags(degrees)}"


def most_sequences(inference: Inference) -> int:
    """The largest batch that fits; 0 if none does."""
    return _most(inference, "batch", MOST_SEQUENCES)


def longest_input(inference: Inference, most: int = MOST_TOKENS) -> int:
    """The longest prompt that fits, up to `most` tokens; 0 if none does."""
    return _most(inference, "input_tokens", most)


def _most(inference: Inference, name: str, most: int) -> int:
    def fits(tried: Any) -> Any:
        changes: dict[str, Any] = {name: tried}
        return replace(inference, requests=replace(inference.requests, **changes)).memory().fits

    return largest(fits, most) if most >= 1 else 0


def most_slots(inference: Inference) -> int:
    """The largest number of adapters like the deployment's that fit together with the requests; 0 if none does."""
    adapter = replace(
        inference.deployment.lora or LoraConfig(), enabled=True, strategy="dynamic", active_adapters=1, shares=()
    )

    def fits(tried: Any) -> Any:
        lora = replace(adapter, max_loras=tried)
        return replace(inference, deployment=replace(inference.deployment, lora=lora)).memory().fits

    return largest(fits, MOST_SLOTS)


def remedies(inference: Inference, degrees: Sequence[Parallelism]) -> Iterator[Remedy]:
    """Changes with which the requests fit, each applied alone and checked.

    inference: the deployment and its requests
    degrees: the degrees found by `fewest_devices`
    """
    deployment, requests = inference.deployment, inference.requests
    staged = [*degrees[:1], *degrees[-1:]] if len(degrees) > 1 and degrees[0].pp > 1 else degrees[:1]
    for one in staged:
        yield Remedy(flags=degrees_flags(one), deployment=replace(deployment, parallelism=one), requests=requests)
    yield from _in_less_bytes(deployment, requests)
    for name, found in (("batch", most_sequences(inference)), ("input_tokens", longest_input(inference))):
        if found:
            changes: dict[str, Any] = {name: found}
            flag = f"--{name.removesuffix('_tokens')} {found}"
            yield Remedy(flags=flag, deployment=deployment, requests=replace(requests, **changes))
    lora = deployment.adapter
    if lora is not None and lora.strategy == "dynamic" and (slots := most_slots(inference)):
        fewer = replace(lora, max_loras=slots, active_adapters=np.minimum(lora.active_adapters, slots), shares=())
        yield Remedy(
            flags=f"--lora …,adapters={fewer.active_adapters:.0f},max_loras={slots}",
            deployment=replace(deployment, lora=fewer), requests=requests,
        )  # fmt: skip


def _in_less_bytes(deployment: Deployment, requests: Requests) -> Iterator[Remedy]:
    """The first weight format that fits, and the KV cache in fp8 if that alone suffices."""
    wide = deployment.precision.weights.bytes >= 2
    named = [f"{deployment.precision.name},kv=fp8", *(PRECISIONS if wide else ())]
    for name in named:
        try:
            changed = replace(deployment, precision=name)
        except GraphsimError:
            continue
        compute = changed.precision.weights.compute
        if compute and compute not in deployment.device.flops_per_s:
            continue
        memory = memory_or_none(changed, requests)
        if memory is not None and memory.fits:
            yield Remedy(flags=f"--precision {name}", deployment=changed, requests=requests)
            return
