"""The cost families: which kernels each one prices, and how their rows look in the reference schema."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from graphsim.errors import ConfigError, choices_text

ANY: tuple[str, ...] = ()
"""Names that only measurements know, as those of expert kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One operator family and how its rows look.

    name: of its module in `cost/families`
    numbers: columns that must hold positive numbers
    groups: columns of which one shape has one value
    layout: columns that make up a whole shape, held out together when a fit is judged
    hints: like `groups`, but a frame may lack them
    ops: values of column `op` that it prices
    """

    name: str
    numbers: tuple[str, ...]
    groups: tuple[str, ...]
    layout: tuple[str, ...]
    ops: tuple[str, ...]
    hints: tuple[str, ...] = ()

    @property
    def module(self) -> Any:
        """The module with `shape_of`, `latency_s`, `roofline_s` and `fit`; what it says of its fits in files:

        LEVELS: the names that lead to a fit, level by level; `ANY` where only measurements know them
        SURFACES: what its surfaces may be laid out as
        needed: the constants of the fit at some names, without which nothing can be priced
        """
        return import_module(f"graphsim.cost.families.{self.name}")


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(name="gemm", numbers=("m", "n", "k"), groups=("dtype",), layout=("n", "k"), ops=("gemm",)),
        Family(
            name="elementwise", numbers=("message_size",), groups=("op", "dtype", "kernel"), layout=("message_size",),
            ops=("elementwise", "copy", "host_to_device"),
        ),
        Family(
            name="attention", numbers=("batch", "seq_len", "kv_len", "heads", "kv_heads", "head_dim"),
            groups=("op", "kv_dtype"), layout=("heads", "kv_heads", "head_dim", "window"),
            ops=("context_attention", "generation_attention"),
        ),
        Family(
            name="moe", numbers=("m", "hidden", "inter", "topk", "experts"), groups=("dtype", "distribution"),
            layout=("hidden", "inter", "topk", "experts", "tp", "ep"), hints=("kernel",), ops=("moe",),
        ),
        Family(
            name="collectives", numbers=("message_size", "num_devices"), groups=("op", "dtype"),
            layout=("message_size", "num_devices"), hints=("kernel",),
            ops=("all_reduce", "all_gather", "reduce_scatter", "alltoall", "custom_allreduce"),
        ),
    )
}  # fmt: skip
"""All cost families by name: the one list of them."""

FAMILY_OF = {op: family for family in FAMILIES.values() for op in family.ops}
"""The family of each `op` of the reference schema."""


def family_of(op: str) -> Family:
    """The family that prices an op. Raises ConfigError listing the known ops."""
    if op not in FAMILY_OF:
        raise ConfigError(f"op '{op}' is not known; {choices_text(op, FAMILY_OF)}")
    return FAMILY_OF[op]
