"""Prices of a graph's operations from measured kernels: one file for each family that operations name.

Each has `measured_s(op, hardware, parameters, kernel_s)`: the seconds of an operation's kernels, whose shapes
`kernel_s` prices; None if no similar kernel was measured. A file is imported when an operation first names its family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from graphsim.cost.families.registry import FAMILIES
from graphsim.ops import Op
from graphsim.units import Num

Parameters = Mapping[str, Mapping[str, Any]]
"""Fitted parameters by family; empty where there are none."""

KernelTime = Callable[[Any], Num]
"""Seconds of a measured kernel from its shape, whose `family` prices it."""

BLOCKS: dict[str, tuple[str, ...]] = {
    "attention": ("encoder_attention",), "batched_gemm": (), "collectives": ("elementwise",), "elementwise": (),
    "expert_exchange": (), "gemm": (), "hyper_connections": (), "mla": ("attention", "encoder_attention"),
    "moe": (), "recurrent": (), "sparse": ("attention", "encoder_attention"),
}  # fmt: skip
"""The families that operations name, each with those whose kernels its operations may run too or be priced as.

Besides, all prices depend on the fits of GEMMs.
"""


def block_of(family: str) -> Any:
    """The file of one of BLOCKS."""
    return import_module(f"{__name__}.{family}")


def families_behind(ops: Iterable[Op]) -> list[str]:
    """The families whose fits the prices of some operations depend on."""
    named = {op.family for op in ops} & BLOCKS.keys()
    behind = {"gemm", *named, *(other for family in named for other in BLOCKS[family])}
    return [family for family in FAMILIES if family in behind]
