"""OFT: blocks of the linear's input are rotated, each by its own orthogonal matrix. arXiv 2306.07280.

PEFT 0.21 (`tuners/oft/layer.py`) computes the matrices in every forward pass, from the upper halves of skew-symmetric
ones: by a Neumann series of a few GEMMs, or by solving a system for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.graph import Step, Value
from graphsim.lora.made import built, folded, live, rotation
from graphsim.lora.options import Option
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Embedding, Gemm, LoraMerge, Op
from graphsim.ops.adapter_values import RotateInput
from graphsim.ops.adapter_weights import BuiltWeights
from graphsim.ops.formats import FORMATS
from graphsim.units import Num

SOLVE = 8.0 / 3.0
"""Flops of solving a system of b equations for b right sides, in b cubed: 2/3 for the factors, 2 for the sides."""


class _Orthogonal(Variant):
    __slots__ = ()

    def check(self, lora: Described) -> None:
        """Raise ConfigError unless blocks are given either by number or by size."""
        Variant.check(self, lora)
        number, size = lora.options["r"], lora.options["oft_block_size"]
        if bool(number) == bool(size):
            raise ConfigError(
                f"lora.options.r = {number} is not allowed with lora.options.oft_block_size = {size}; "
                "expected one of them to be 0"
            )

    def ahead(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The matrices, and the rotation of the input."""
        block, made = _matrices(int(float(site.op.k)), live(site), site.lora)
        yield "lora_rotation", built(site, "lora_rotation", **made)
        yield "lora_rotated", rotation(site, "lora_rotated", block)

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """No addition."""
        yield from ()

    def on_table(self, name: str, op: Embedding, inputs: list[Value], lora: Described) -> Iterator[Step]:
        """Rotates the rows that were looked up."""
        there, rows = np.minimum(lora.rank, 1.0), op.tokens * lora.adapter_share
        block, made = _matrices(int(float(op.width)), there, lora)
        given: dict[str, Any] = {"activations": op.activations, "layer": op.layer}
        factors = FORMATS[lora.lora_dtype]
        yield name, op, inputs
        matrices = BuiltWeights(
            role=f"{op.role}.lora_rotation", rank=there, copies=np.minimum(lora.active_adapters, rows),
            factors=factors, made=factors, **made, **given,
        )  # fmt: skip
        yield f"{name}.lora_rotation", matrices, []
        rotated = RotateInput(
            role=f"{op.role}.lora_rotated", m=op.tokens, inputs=op.width, width=op.width, block=block,
            rows=rows * there, weights=factors, copies=lora.active_adapters, launches=there, **given,
        )  # fmt: skip
        yield f"{name}.lora_rotated", rotated, [Value(name), Value(f"{name}.lora_rotation")]

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The rotations as one matrix of all inputs, times W."""
        return folded(merge, self.ahead(site), 2.0 * site.op.n * site.op.k * site.op.k)

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The upper halves of the matrices."""
        return {"oft_R": _halves(int(float(op.k)), lora)}

    def table_tensors(self, op: Embedding, rank: Num, lora: Described) -> Shapes:
        """The same for rows."""
        return {"oft_embedding_R": _halves(int(float(op.width)), lora)}


def _matrices(inputs: int, there: Num, lora: Described) -> tuple[float, dict[str, Any]]:
    """The size of a block, and the work of computing all matrices.

    there: 0 without an adapter, else 1
    """
    options = lora.options
    number, block = blocks_of(inputs, options["r"], options["oft_block_size"])
    own = 1 if options["block_share"] else number
    terms, entries = options["num_cayley_neumann_terms"], own * block * block
    series = options["use_cayley_neumann"]
    products = max(terms - 2, 0) if series else 0
    flops = 2.0 * products * entries * block if series else SOLVE * entries * block
    kernels = 5.0 + (2.0 + products + max(terms - 1, 0) if series else 4.0)
    moved = kernels * entries
    return float(block), {
        "held": there * own * block * (block - 1) / 2.0, "elems": float(entries), "launches": kernels, "flops": flops,
        "vector_flops": moved, "read_elems": moved, "write_elems": moved,
    }  # fmt: skip


def _halves(inputs: int, lora: Described) -> tuple[Num, ...]:
    """The shape of the parameters."""
    number, block = blocks_of(inputs, lora.options["r"], lora.options["oft_block_size"])
    return 1 if lora.options["block_share"] else number, block * (block - 1) // 2


def blocks_of(inputs: int, number: int, size: int) -> tuple[int, int]:
    """The number of blocks and their size: the divisor of the inputs closest to the requested one."""
    asked = _divisor(inputs, size or number)
    return (inputs // asked, asked) if size else (asked, inputs // asked)


def _divisor(inputs: int, asked: int) -> int:
    if asked >= inputs:
        return inputs
    above = next(i for i in range(asked, inputs + 1) if inputs % i == 0)
    below = next(i for i in range(asked, 0, -1) if inputs % i == 0)
    return below if asked - below <= above - asked else above


VARIANT = _Orthogonal(
    name="oft", peft_type="OFT", rank_field="", scaled=False, bias=False, experts=False, conv1d=False,
    parts=("oft_R", "oft_embedding_R"),
    table="rotation",
    options=(
        Option(name="r", default=0, least=0),
        Option(name="oft_block_size", default=32, least=0),
        Option(name="block_share", default=False),
        Option(name="use_cayley_neumann", default=True),
        Option(name="num_cayley_neumann_terms", default=5, most=1000),
    ),
)  # fmt: skip
