"""BD-LoRA: one factor is block-diagonal, so that the adapter needs no communication. arXiv 2510.23346."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from graphsim.errors import ConfigError
from graphsim.lora.variant import Described, Site, Variant
from graphsim.ops import Gemm, LoraA, LoraB, Op, Sharding
from graphsim.symbolic.guard import Figure, Guard, require
from graphsim.units import Num


class _BlockDiagonal(Variant):
    __slots__ = ()

    def dealt(self, lora: Described) -> Mapping[str, Num]:
        """Blocks, and with them the rank. Raises ConfigError unless every rank is divisible into whole blocks."""
        _require_blocks(lora)
        return {"blocks": lora.blocks, "rank": lora.rank}

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """A and B, one of them with blocks."""
        a, b = _factors(site.op, site.a, site.b, site.lora)
        yield "lora_a", a
        yield "lora_b", b


def _require_blocks(lora: Described) -> None:
    """Raise ConfigError unless every rank is divisible into whole blocks; for symbols, a guard is stored on the
    tape.
    """
    ranks = {"rank": lora.rank, **{f"rank_pattern.{name}": rank for name, rank in lora.rank_pattern.items()}}
    for name, rank in ranks.items():
        _require_whole(lora.blocks, rank, f" is not allowed for a lora.{name} of ", "")


def _require_whole(blocks: Num, size: Num, words: str, what: str) -> None:
    require(
        Guard(
            rule="blocks of factors", about="lora.blocks", broken=np.not_equal(np.mod(size, blocks), 0.0),
            sentence=("lora.blocks = ", Figure(value=blocks), words, Figure(value=size), f"{what}; expected a divisor"),
        )
    )  # fmt: skip


def _factors(op: Gemm, a: LoraA, b: LoraB, lora: Described) -> tuple[LoraA, LoraB]:
    """A device needs only the blocks of its own slice, so factors are sharded over ranks without communication.

    B is block-diagonal at a column-parallel base, A at a row-parallel one.
    """
    side, blocks = _side(op, lora), lora.blocks
    for name, size in (("inputs", a.k), ("rank", a.n)) if side == "a" else (("rank", b.k), ("outputs", b.n)):
        if side:
            _require_whole(blocks, size, f" is not allowed for '{op.role}' with ", f" {name}")
    if side == "a":
        return replace(a, blocks=blocks, split=Sharding.DEALT), replace(b, split=Sharding.ROW)
    if side == "b" and op.split is not Sharding.COLUMN:
        return a, replace(b, blocks=blocks)
    return (replace(a, split=Sharding.COLUMN), replace(b, blocks=blocks, split=Sharding.DEALT)) if side else (a, b)


def _side(op: Gemm, lora: Described) -> str:
    """Which factor has blocks, `a` or `b`: as stated by the adapter, else according to how a tensor-parallel group
    shards the base.
    """
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


VARIANT = _BlockDiagonal(name="bd-lora", pattern_field="rank_pattern", table="factors")
