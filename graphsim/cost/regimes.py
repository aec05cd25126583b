"""The kernel that a price assumes for an operation: its tiles, its split, its collective.

An estimate that falls as work grows does so where one kernel replaces another; this module names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphsim.cost.base import CostModel
from graphsim.cost.blocks.collectives import kinds_of
from graphsim.cost.blocks.gemm import kernel_shape, product_of
from graphsim.cost.calibrated import Prices
from graphsim.cost.families import collectives, gemm
from graphsim.cost.families.collectives import CUSTOM_LIMIT_BYTES, CollectiveShape
from graphsim.cost.interconnect import runs_own_all_reduce
from graphsim.hardware import Hardware
from graphsim.ops import Collective, Gemm, Op
from graphsim.ops.lora_kernels import LoraKernel

_COLLECTIVES = {"all_reduce": "the library's all-reduce", "custom_allreduce": "the engine's own all-reduce"}


def regime(op: Op, price: CostModel, hardware: Hardware) -> str:
    """The kernel behind the price of an operation of one scenario; "" if the price has only one."""
    if isinstance(op, LoraKernel):
        empty = f" and {float(op.empty_tiles):,.0f} empty ones" if np.any(np.greater(op.empty_tiles, 0.0)) else ""
        return f"a grid of {float(op.tiles):,.0f} tiles{empty}"
    if not isinstance(price, Prices):
        return ""
    if isinstance(op, Collective) and len(kinds_of(op)) > 1:
        return _collective(op, price.parameters["collectives"], hardware)
    if isinstance(op, Gemm) and op.family == "gemm" and op.weights.gemm:
        return _product(op, price.parameters["gemm"], hardware)
    return ""


def _collective(op: Collective, parameters: Mapping[str, Any], hardware: Hardware) -> str:
    """The fastest applicable one; beyond the limit of vLLM's own, the library's."""
    if not parameters or not hardware.links:
        return ""
    library, *own = kinds_of(op)
    barred = np.any(np.greater_equal(op.payload_bytes, CUSTOM_LIMIT_BYTES)) or not np.all(
        runs_own_all_reduce(hardware, op.group, op.stride)
    )
    serving = [library, *(kind for kind in own if kind in parameters and not barred)]
    shapes = {
        kind: CollectiveShape(kind=kind, message_bytes=op.payload_bytes, devices=op.group, stride=op.stride)
        for kind in serving
    }
    return _COLLECTIVES[min(shapes, key=lambda kind: float(collectives.latency_s(parameters, hardware, shapes[kind])))]


def _product(op: Gemm, parameters: Mapping[str, Any], hardware: Hardware) -> str:
    """Tile and split; none if several devices' fits are averaged, each of which may choose a different one."""
    tile = gemm.tile_of(parameters, hardware, kernel_shape(product_of(op)))
    if tile is None:
        return ""
    rows, columns, split = tile
    return f"tiles of {rows:.0f} × {columns:.0f}" + (f", k split {split:.0f} ways" if split > 1 else "")
