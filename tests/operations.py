"""All operations of the library, and an example of each."""

from __future__ import annotations

import pkgutil
from dataclasses import fields
from importlib import import_module

from graphsim import ops
from graphsim.ops import Norm, Op, Repeat, Together
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.kinds import defined_ops
from graphsim.ops.lora_kernels import LoraKernel

for module in pkgutil.iter_modules(ops.__path__, "graphsim.ops."):
    import_module(module.name)

ABSTRACT = (Op, LoraKernel)
"""Kinds that no node is made of."""

KINDS = sorted(
    {
        kind
        for kind in defined_ops().values()
        if kind.__module__.startswith("graphsim.ops.") and not kind.__name__.startswith("_")
    }
    - {*ABSTRACT, Repeat, Together},
    key=lambda kind: kind.__name__,
)
"""All that can be made of numbers alone."""

FIXED: dict[str, object] = {
    "of": 8,
    "chosen": 2,
    "gather": True,
    "slices": 2.0,
    "routing": ExpertGemm(m=6.0, n=4.0, k=8.0, experts=8.0, of=8, chosen=2, tokens=3.0, ranks=2.0),
}
"""Values for fields that are no numbers over scenarios."""


def made(kind: type[Op], dims: dict[str, object], **further: object) -> Op:
    """An operation with the given numbers, and with those of FIXED that it needs."""
    needed = {f.name: FIXED[f.name] for f in fields(kind) if f.name in FIXED and f.name not in dims}
    return kind(**dims, **needed, **further)  # type: ignore[arg-type]


def dims_of(kind: type[Op]) -> list[str]:
    """The fields that hold numbers over scenarios."""
    return [f.name for f in fields(kind) if str(f.type) == "Num"]


def example(kind: type[Op], **further: object) -> Op:
    """One of each kind, whose dimensions are small whole numbers that differ."""
    dims: dict[str, object] = {name: float(2 + i) for i, name in enumerate(dims_of(kind)) if name not in further}
    if kind is Norm:
        dims["vectors"] = 1.0
    return made(kind, dims, **further)
