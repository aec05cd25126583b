"""BOFT: the linear's input is rotated by a product of permuted block-diagonal matrices, its result is scaled.

arXiv 2311.06243. PEFT 0.21 (`tuners/boft/layer.py`) solves a system for each block in every forward pass, writes each
factor as a matrix of all inputs between two permutations that are such matrices too, and multiplies them all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphsim.errors import ConfigError
from graphsim.graph import Step
from graphsim.lora.made import built, folded, live, require_divisor, rotation, scaled_result
from graphsim.lora.options import Option
from graphsim.lora.variant import OVERRIDDEN, Described, Shapes, Site, Variant
from graphsim.lora.variants.oft import SOLVE
from graphsim.ops import Gemm, LoraMerge, Op
from graphsim.units import Num


class _Butterfly(Variant):
    __slots__ = ()

    def check(self, lora: Described) -> None:
        """Raise ConfigError unless blocks are given either by number or by size."""
        Variant.check(self, lora)
        number, size = lora.options["boft_block_num"], lora.options["boft_block_size"]
        if bool(number) == bool(size):
            raise ConfigError(
                f"lora.options.boft_block_num = {number} is not allowed with lora.options.boft_block_size = {size}; "
                "expected one of them to be 0"
            )

    def ahead(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The rotation as one matrix of all inputs, and the GEMM with it."""
        inputs, factors = site.op.k, site.lora.options["boft_n_butterfly_factor"]
        block = self._block(site)
        square, entries = inputs * inputs, factors * inputs * block
        products = 3.0 * factors
        yield "lora_rotation", built(
            site, "lora_rotation", held=live(site) * (entries + site.op.n), elems=square, launches=8.0 + products,
            flops=2.0 * products * square * inputs + SOLVE * entries * block, vector_flops=4.0 * entries + square,
            read_elems=2.0 * products * square + 4.0 * entries,
            write_elems=(products + factors + 1.0) * square + 4.0 * entries,
        )  # fmt: skip
        yield "lora_rotated", rotation(site, "lora_rotated", inputs, dense=True)

    def _block(self, site: Site) -> float:
        """The size of a block. Raises ConfigError if the inputs cannot be divided or halved that often."""
        options, inputs = site.lora.options, int(float(site.op.k))
        number, size, factors = (
            options[key] for key in ("boft_block_num", "boft_block_size", "boft_n_butterfly_factor")
        )
        field = "options.boft_block_size" if size else "options.boft_block_num"
        require_divisor(site, field, size or number, outputs=False)
        block, blocks = (size, inputs // size) if size else (inputs // number, number)
        halvings = 2 ** (factors - 1)
        odd = factors > 1 and (blocks % 2 or block % 2)
        if factors > 1 and (odd or blocks < halvings or blocks % halvings):
            raise ConfigError(
                f"lora.options.boft_n_butterfly_factor = {factors} is not allowed for '{site.op.role}' with {blocks} "
                f"blocks of {block} inputs; expected even blocks, in a multiple of {max(halvings, 2)}"
            )
        return float(block)

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """No addition."""
        yield from ()

    def behind(self, site: Site) -> Iterator[Step]:
        """The scaling, which excludes the linear's bias."""
        turns = 1.0 + 2.0 * float(site.op.bias)
        yield from scaled_result(
            site,
            "lora_scaled",
            OVERRIDDEN,
            vectors=0.0,
            steps=turns,
            passes=turns,
            launches=turns * np.minimum(live(site), 1.0),
        )

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The rotation times W."""
        return folded(merge, self.ahead(site), 2.0 * site.op.n * site.op.k * site.op.k)

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The matrices and the scales."""
        options, inputs = lora.options, int(float(op.k))
        size = options["boft_block_size"] or inputs // options["boft_block_num"]
        return {
            "boft_R": (options["boft_n_butterfly_factor"], inputs // size, size, size), "boft_s": (op.n, 1),
        }  # fmt: skip


VARIANT = _Butterfly(
    name="boft", peft_type="BOFT", rank_field="", scaled=False, bias=False, experts=False, conv1d=False,
    parts=("boft_R", "boft_s"),
    options=(
        Option(name="boft_block_size", default=4, least=0),
        Option(name="boft_block_num", default=0, least=0),
        Option(name="boft_n_butterfly_factor", default=1, most=30),
    ),
)  # fmt: skip
