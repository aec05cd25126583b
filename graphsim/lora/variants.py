"""Variants of LoRA as nodes around the factors; the plain adapter passes through unchanged.

Each function turns the factors of one module into the steps of its variant. Sources stand with the operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.graph.rewriting import Step, Value
from graphsim.lora.config import PLAIN, UNMERGED, LoraConfig
from graphsim.ops import Gemm, LoraA, LoraAdd, LoraB, Sharding
from graphsim.ops.lora_variants import DoraNorm, DoraScale, GroupPool, VectorScale
from graphsim.symbolic.questions import is_known
from graphsim.units import short


def steps(
    name: str, op: Gemm, inputs: list[Value], factors: tuple[LoraA, LoraB, LoraAdd], lora: LoraConfig
) -> Iterator[Step]:
    """The base, the factors and what the variant puts around them; the last step stands for the base."""
    a, b, joined = factors
    yield name, op, inputs
    if lora.variant == "qa-lora":
        pool = GroupPool(role=f"{op.role}.lora_pool", m=a.m, k=a.k, groups=lora.group_size, layer=op.layer)
        a = replace(a, k=a.k / lora.group_size)
        yield f"{name}.lora_pool", replace(pool, activations=op.activations), inputs
        inputs = [Value(f"{name}.lora_pool")]
    if lora.variant == "vera":  # random, frozen, and the same for all modules
        a, b = replace(a, shared=True), replace(b, shared=True)
    if lora.variant == "bd-lora":
        a, b = _block_diagonal(op, a, b, lora)
    yield f"{name}.lora_a", a, inputs
    last = f"{name}.lora_a"
    if lora.variant == "vera":
        yield f"{name}.lora_d", _vector(op, "d", a), [Value(last)]
        last = f"{name}.lora_d"
    yield f"{name}.lora_b", b, [Value(last)]
    last = f"{name}.lora_b"
    if lora.variant == "vera":
        yield f"{name}.lora_scale", _vector(op, "scale", b), [Value(last)]
        last = f"{name}.lora_scale"
    yield f"{name}.lora_add", joined, [Value(name), Value(last)]
    if lora.variant == "dora":
        yield from _dora(name, op, a, joined)


def _block_diagonal(op: Gemm, a: LoraA, b: LoraB, lora: LoraConfig) -> tuple[LoraA, LoraB]:
    """A device meets the blocks of its own slice only, so factors are cut over ranks and exchange nothing.

    BD-LoRA, arXiv 2510.23346: B is block-diagonal at a column-parallel base, A at a row-parallel one.
    """
    side, blocks = _side(op, lora), lora.blocks
    for name, size in (("inputs", a.k), ("rank", a.n)) if side == "a" else (("rank", b.k), ("outputs", b.n)):
        if side and is_known(size) and np.any(np.asarray(size) % np.asarray(blocks)):
            raise ConfigError(
                f"lora.blocks = {short(blocks)} is not allowed for '{op.role}' with {short(size)} {name}; "
                "expected a divisor"
            )
    if side == "a":
        return replace(a, blocks=blocks, split=Sharding.DEALT), replace(b, split=Sharding.ROW)
    if side == "b" and op.split is not Sharding.COLUMN:
        return a, replace(b, blocks=blocks)
    return (replace(a, split=Sharding.COLUMN), replace(b, blocks=blocks, split=Sharding.DEALT)) if side else (a, b)


def _side(op: Gemm, lora: LoraConfig) -> str:
    """Which factor has blocks, `a` or `b`: as the adapter says, else as a tensor-parallel group cuts the base."""
    if lora.blocks_a is None and lora.blocks_b is None:
        return "a" if op.split is Sharding.ROW else "b"
    name = op.module.rpartition(".")[2]
    sides = [
        side for side, parts in (("a", lora.blocks_a), ("b", lora.blocks_b)) if any(p in name for p in parts or ())
    ]
    if len(sides) == 1 or not (sides or lora.blocks_strict):
        return "".join(sides)
    which = "both" if sides else "neither"
    raise ConfigError(
        f"lora.blocks_a, lora.blocks_b: '{name}' is in {which} of them; expected one, or blocks_strict=False"
    )


def _vector(op: Gemm, part: str, factor: LoraA | LoraB) -> VectorScale:
    return VectorScale(
        role=f"{op.role}.lora_{part}", elems=factor.m * factor.n, width=factor.n, units=factor.units,
        activations=op.activations, layer=op.layer,
    )  # fmt: skip


def _dora(name: str, op: Gemm, a: LoraA, joined: LoraAdd) -> Iterator[Step]:
    norm = DoraNorm(
        role=f"{op.role}.dora_norm", n=op.n, k=op.k, rank=a.n * np.minimum(a.m, 1.0), split=op.split, units=op.units,
        weights=op.weights, activations=op.activations, layer=op.layer,
    )  # fmt: skip
    yield f"{name}.dora_norm", norm, []
    scale = DoraScale(
        role=f"{op.role}.dora_scale", m=joined.m, n=joined.n, rows=joined.rows, units=joined.units, parts=joined.parts,
        activations=op.activations, layer=op.layer,
    )  # fmt: skip
    yield f"{name}.dora_scale", scale, [Value(f"{name}.lora_add"), Value(f"{name}.dora_norm")]


def require_engine(lora: LoraConfig, kernels: str, engine: str) -> None:
    """Raise ConfigError where an engine's kernels know plain adapters only."""
    if kernels == "fused" and lora.variant not in PLAIN:
        others = choices_text(engine, ["peft", "reference"]) + ("" if lora.variant in UNMERGED else ", or merge it")
        raise ConfigError(f"engine '{engine}' runs no adapter of variant '{lora.variant}'; {others}")
