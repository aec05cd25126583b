"""Exchanges of tokens with the devices of their experts, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.families.exchange_work import ExchangeShape, copies
from graphsim.hardware import Hardware
from graphsim.ops import ExchangeTokens, Op
from graphsim.units import Num

EXCHANGED = {"fp8": "fp8", "nvfp4": "nvfp4", "fp4": "nvfp4"}
"""The dtype of exchanged rows, by the format in which they are multiplied; 16 bits for all others."""


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """None where no kernels are named, or the device has no links."""
    if not isinstance(op, ExchangeTokens) or not op.kernels or not parameters["expert_exchange"] or not hardware.links:
        return None
    return exchange_s(op, kernel_s)


def exchange_s(op: ExchangeTokens, kernel_s: Callable[[ExchangeShape], Num]) -> Num:
    """Seconds of an exchange of tokens with their experts' devices, by the kernels that it names.

    The routing lists are computed before the dispatch, by a separate kernel in some libraries.
    """
    there = ExchangeShape(
        tokens=op.tokens, hidden=op.width, topk=op.chosen, experts=op.experts, ep=op.group, backend=op.kernels,
        phase="dispatch", dtype=EXCHANGED.get(op.activations.compute, "bfloat16"),
    )  # fmt: skip
    rows = np.maximum(op.tokens * op.width * copies(replace(there, ep=np.maximum(op.group, 1.0))), 1e-9)
    there = replace(there, busiest=op.elems / rows)
    if not op.there:
        return kernel_s(replace(there, phase="combine", dtype="bfloat16"))
    return kernel_s(replace(there, phase="prepare")) + kernel_s(there)
