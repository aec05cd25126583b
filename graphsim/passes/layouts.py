"""Layouts of a value over the devices of a tensor-parallel group, and the collectives that convert between them."""

from __future__ import annotations

from enum import Enum

from graphsim.ops import AllGather, AllReduce, AllToAll, Collective, ReduceScatter, Sharding


class Layout(Enum):
    """The layout of a value over the devices of a tensor-parallel group."""

    REPLICATED = "replicated"
    SHARDED = "sharded"
    PARTIAL = "partial"
    SEQUENCE = "sequence"


R, S, P, SEQ = Layout.REPLICATED, Layout.SHARDED, Layout.PARTIAL, Layout.SEQUENCE

COLLECTIVES: dict[tuple[Layout, Layout], type[Collective]] = {
    (P, R): AllReduce,
    (P, SEQ): ReduceScatter,
    (S, R): AllGather,
    (SEQ, R): AllGather,
    (P, S): ReduceScatter,
    (S, SEQ): AllToAll,
    (SEQ, S): AllToAll,
}
"""The collective that converts a value from one layout to another."""

FIXED: dict[Sharding, tuple[Layout | None, Layout]] = {
    Sharding.COLUMN: (R, S),
    Sharding.ROW: (S, P),
    Sharding.VOCAB: (None, P),
    Sharding.WHOLE: (R, R),
    Sharding.DEAL_OUT: (R, S),
    Sharding.DEALT: (S, S),
    Sharding.COLLECT: (None, P),
    Sharding.TOKENS: (SEQ, SEQ),
}
"""For operations with fixed layouts: that of the inputs (None: any), and that of the result."""

SUFFIX = {AllReduce: "all_reduce", ReduceScatter: "reduce_scatter", AllGather: "all_gather", AllToAll: "all_to_all"}
