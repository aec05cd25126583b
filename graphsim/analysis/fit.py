"""What fits in a device's memory together with a model: requests, tokens, context, adapters; and the number of devices
needed.

All answers use the memory model of an `Estimate`, which follows the engine's own rules.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from graphsim.analysis.compare import one_scenario
from graphsim.analysis.placements import (
    MOST_TOKENS,
    Remedy,
    degrees_of,
    fewest_devices,
    longest_input,
    most_sequences,
    most_slots,
    placed,
    remedies,
)
from graphsim.analysis.slots import footprint_of
from graphsim.deployment.arguments import request_verb
from graphsim.deployment.inference import Inference
from graphsim.deployment.memory import Memory
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import GraphsimError
from graphsim.lora.config import LoraConfig
from graphsim.result import plain
from graphsim.units import amount_text, bytes_text


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """What fits in a deployment's memory, and on how many devices it fits if it does not.

    inference: the deployment and its requests
    memory: memory of one device with these requests, as in `Estimate.memory`
    max_batch: the largest number of requests of these lengths; 0 if not even one fits
    context_tokens: the longest prompt plus answer of each request in this batch, in tokens; 0 if none fits
    max_positions: number of positions of the model, which context_tokens never exceeds; 0 if it states none
    kv_tokens: tokens that the KV cache holds; None if it cannot be counted in tokens, as for encoder-decoders
    adapters: number of slots for such adapters in addition to these requests
    rank: the rank to which slots are padded
    devices: the smallest number of devices that fit everything, up to 64; None if none of these does
    degrees: ways to use that number of devices, the most tensor-parallel ones first; if none of these is purely
        tensor-parallel, the lowest tensor-parallel degree that fits comes last
    """

    inference: Inference
    memory: Memory
    max_batch: int
    context_tokens: int
    max_positions: int
    kv_tokens: float | None
    adapters: int
    rank: float
    devices: int | None
    degrees: tuple[Parallelism, ...]

    @property
    def fits(self) -> bool:
        """Whether the requests fit on the devices given."""
        return bool(self.memory.fits)

    @cached_property
    def remedies(self) -> tuple[Remedy, ...]:
        """Changes with which the requests fit, each applied alone; empty if they fit already."""
        return () if self.fits else tuple(remedies(self.inference, self.degrees))

    @property
    def would_fit(self) -> str:
        """The remedies as a sentence; "" if there are none."""
        return ", or ".join(remedy.text for remedy in self.remedies)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name for JSON."""
        deployment, requests = self.inference.deployment, self.inference.requests
        named = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in _OWN}
        return {
            "model": deployment.model.name, "hardware": deployment.device.name, "engine": deployment.engine_name,
            "precision": deployment.precision.name, "batch": plain(requests.batch),
            "input_tokens": plain(requests.input_tokens), "output_tokens": plain(requests.output_tokens),
            "fits": self.fits, **named, "memory": plain(self.memory.to_dict()),
            "degrees": [degrees_of(one) for one in self.degrees],
            "remedies": [remedy.flags for remedy in self.remedies],
        }  # fmt: skip

    def __repr__(self) -> str:
        deployment = self.inference.deployment
        told = "fits" if self.fits else "does not fit"
        most = f"batch {self.max_batch}, context {self.context_tokens}, {self.adapters} adapters"
        return f"Fit({deployment!r}: {told}; at most {most})"

    def __str__(self) -> str:
        deployment, requests = self.inference.deployment, self.inference.requests
        each = f"{amount_text(requests.input_tokens)} + {amount_text(requests.output_tokens)} tokens"
        used = f"{bytes_text(float(self.memory.total_bytes))} of {bytes_text(float(self.memory.capacity_bytes))}"
        lines = [
            f"{deployment.model.name} on {amount_text(deployment.parallelism.devices)} x {deployment.device.name}, "
            f"{deployment.precision.name}, engine {deployment.engine_name}, batch {amount_text(requests.batch)} of "
            f"{each}: " + ("fits" if self.fits else "does not fit"),
            f"memory per device: {used}",
            *(f"{label}: {text}" for label, text in self.rows()),
        ]
        return "\n".join([*lines, *([f"would fit {self.would_fit}"] if self.remedies else [])])

    def rows(self) -> list[tuple[str, str]]:
        """Each answer and what it refers to, as shown in a table."""
        requests = self.inference.requests
        tokens = requests.input_tokens + requests.output_tokens
        bound = " (all that the model knows)" if 0 < self.max_positions == self.context_tokens else ""
        beside = f"beside {amount_text(requests.batch)} x {amount_text(tokens)} tokens"
        fewest = ", ".join(placed(one).removeprefix("on ") for one in self.degrees) or "does not fit on up to 64"
        return [
            ("largest batch", f"{self.max_batch:,} requests of {amount_text(tokens)} tokens"),
            ("longest context", f"{self.context_tokens:,} tokens each, batch {amount_text(requests.batch)}{bound}"),
            ("KV cache", "-" if self.kv_tokens is None else f"{self.kv_tokens:,.0f} tokens in all"),
            (f"adapters of rank {amount_text(self.rank)}", f"{self.adapters:,} {beside}"),
            ("fewest devices", fewest),
        ]


_OWN = ("inference", "memory", "degrees")
"""Fields that are not plain values."""


@request_verb
def fit(inference: Inference) -> Fit:
    """What fits in memory: the largest batch, the longest context, KV cache tokens, adapters, the fewest devices.

    Each figure is the largest that fits while everything else stays as given. Without an adapter, adapters of rank 16
    on attention and MLP are counted. Arguments are those of `simulate`; requests that do not fit are not an error.
    Raises ConfigError for arrays of scenarios, and whatever `simulate` raises.
    """
    one_scenario(inference)
    deployment, requests = inference.deployment, inference.requests
    adapter = deployment.adapter or LoraConfig()
    positions = int(deployment.model.max_positions or 0)
    output = int(requests.output_tokens)
    prompt = longest_input(inference, positions - output if positions else MOST_TOKENS)
    degrees = fewest_devices(inference)
    return Fit(
        inference=inference,
        memory=inference.memory(),
        max_batch=most_sequences(inference),
        context_tokens=prompt + output if prompt else 0,
        max_positions=positions,
        kv_tokens=_kv_tokens(inference),
        adapters=most_slots(inference),
        rank=float(np.max(np.maximum(adapter.max_lora_rank, adapter.largest_rank))),
        devices=int(np.max(degrees[0].devices)) if degrees else None,
        degrees=degrees,
    )


def _kv_tokens(inference: Inference) -> float | None:
    try:
        found = float(footprint_of(inference.deployment).kv_tokens)
    except GraphsimError:
        return None
    return found if np.isfinite(found) else None
