"""Building blocks of PEFT's methods other than LoRA, at one linear: see `graphsim.lora.variants`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from graphsim.graph import Step, Value
from graphsim.lora.variant import Site
from graphsim.ops import LoraB, LoraMerge, Op, Sharding
from graphsim.ops.adapter_values import ColumnScale, ResultScale, RotateInput, WideGemm
from graphsim.ops.adapter_weights import BuiltWeights, MethodMerge
from graphsim.symbolic.guard import Figure, Guard, require
from graphsim.units import Num


def live(site: Site) -> Num:
    """0 without an adapter, as at rank 0; else 1."""
    return np.minimum(site.a.n, 1.0)


def adapted_rows(site: Site) -> Num:
    """Rows that have an adapter."""
    return site.a.m * live(site)


def split_of(site: Site) -> Sharding:
    """How a GEMM of the linear's dimensions is sharded: like the linear's weights, unless its factors are
    replicated.
    """
    column = site.op.split is Sharding.COLUMN and site.b.split is not Sharding.COLUMN
    kept_whole = column and site.a.split is Sharding.REPLICATED
    return Sharding.REPLICATED if kept_whole else site.op.split


def built(site: Site, part: str, *, held: Num, elems: Num, launches: Num, **further: Any) -> BuiltWeights:
    """Weights that the adapter computes in every forward pass from `held` parameters; see `BuiltWeights`."""
    fields_of: dict[str, Any] = {"made": site.a.weights, "split": split_of(site)} | further
    copies = np.minimum(site.lora.active_adapters, site.a.m)
    return BuiltWeights(
        role=f"{site.op.role}.{part}", held=held, elems=elems, rank=site.a.n, copies=copies,
        units=site.op.units, weights=site.op.weights, factors=site.a.weights,
        launches=launches * live(site) * np.minimum(copies, 1.0), activations=site.op.activations,
        layer=site.op.layer, **fields_of,
    )  # fmt: skip


def rewritten(site: Site, **made: Any) -> BuiltWeights:
    """The linear's weights, rebuilt in every forward pass; quantised weights are dequantised to the activations'
    format first.
    """
    op = site.op
    weight = op.n * op.k
    widened = weight if op.weights.bytes < op.activations.bytes else 0.0
    moved = {name: made.pop(name, 0.0) + widened for name in ("read_elems", "write_elems")}
    return built(site, "lora_weights", elems=weight, base_elems=weight, split=op.split, **made, **moved)


def product(site: Site, part: str, kind: type[WideGemm] = WideGemm, **further: Any) -> WideGemm:
    """A GEMM of the linear's dimensions, with previously computed weights."""
    op, split = site.op, split_of(site)
    shape = {f.name: getattr(site.b, f.name) for f in fields(LoraB)}
    shape |= {
        "role": f"{op.role}.{part}",
        "m": adapted_rows(site),
        "n": op.n,
        "k": op.k,
        "split": split,
        "bias": False,
        "parts": op.parts,
    }
    shape |= {"units": op.units, "shared": True, "frozen": True} | further
    if split is Sharding.REPLICATED or split is Sharding.ROW:
        shape["parts"] = ()
    return kind(**shape)


def scaled_input(site: Site, part: str, **further: Any) -> ColumnScale:
    """The linear's input, scaled by columns."""
    op = site.op
    given: dict[str, Any] = {"whole": op.split is not Sharding.ROW} | further
    return ColumnScale(
        role=f"{op.role}.{part}", m=op.m * site.present, n=op.k, rows=adapted_rows(site), weights=site.a.weights,
        units=op.units if op.split is Sharding.ROW else 0.0, activations=op.activations, layer=op.layer, **given,
    )  # fmt: skip


def scaled_result(site: Site, part: str, before: str = "", **further: Any) -> Iterator[Step]:
    """The step that scales the linear's result by columns. before: the last name part of the node whose result is
    scaled.
    """
    op, name = site.op, site.name
    scale = ResultScale(
        role=f"{op.role}.{part}", m=op.m, n=op.n, rows=adapted_rows(site), parts=op.parts, units=op.units,
        weights=site.a.weights, activations=op.activations, layer=op.layer, **further,
    )  # fmt: skip
    yield f"{name}.{part}", scale, [Value(f"{name}.{before}" if before else name)]


def rotation(site: Site, part: str, block: Num, *, dense: bool = False) -> RotateInput:
    """A GEMM of the linear's input with blocks of `block` values."""
    op = site.op
    return RotateInput(
        role=f"{op.role}.{part}", m=op.m * site.present, inputs=op.k, width=op.k, block=block,
        rows=adapted_rows(site), dense=dense, split=op.split,
        units=op.units if op.split is Sharding.ROW else 0.0, weights=site.a.weights,
        copies=site.lora.active_adapters, launches=live(site), activations=op.activations, layer=op.layer,
    )  # fmt: skip


def folded(merge: LoraMerge, parts: Iterator[tuple[str, Op]], product: Num = 0.0) -> LoraMerge:
    """The merge of the weights that these parts compute from the adapter's parameters. product: flops of multiplying W
    by them.
    """
    made = next(op for _, op in parts if isinstance(op, BuiltWeights))
    shape = {f.name: getattr(merge, f.name) for f in fields(LoraMerge)}
    wider = made.made.bytes / made.factors.bytes
    return MethodMerge(
        **shape, held=made.held, flops=made.flops + product, vector_flops=made.vector_flops,
        read_elems=made.read_elems * wider, write_elems=made.write_elems * wider,
    )  # fmt: skip


def require_divisor(site: Site, field: str, size: Num, *, inputs: bool = True, outputs: bool = True) -> None:
    """Raise ConfigError, naming the module, unless a size divides the linear's inputs and outputs.

    With symbols, a guard is stored on the tape.
    """
    sides = [("inputs", site.op.k)] * inputs + [("outputs", site.op.n)] * outputs
    for name, width in sides:
        require(
            Guard(
                rule="divisor", about=f"lora.{field}", broken=np.not_equal(np.mod(width, np.maximum(size, 1.0)), 0.0),
                sentence=(
                    f"lora.{field} = ", Figure(value=size), f" is not allowed for '{site.op.role}' with ",
                    Figure(value=width), f" {name}; expected a divisor",
                ),
            )
        )  # fmt: skip


def require_at_most(site: Site, field: str, value: Num, most: Num, what: str) -> None:
    """Raise ConfigError, naming the module, for a value above the maximum of its weights; as `require_divisor`."""
    require(
        Guard(
            rule="at_most", about=f"lora.{field}", broken=np.greater(value, most),
            sentence=(
                f"lora.{field} = ", Figure(value=value), f" is not allowed for '{site.op.role}'; expected at most the ",
                Figure(value=most), f" {what}",
            ),
        )
    )  # fmt: skip
