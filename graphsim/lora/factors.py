"""The two factors at a linear and the ADD after them, sharded according to a tensor-parallel scheme.

A factor is sharded where its base is: a column-parallel base shards B over n, a row-parallel one shards A over k, and
its partial result is reduced together with the base's. The sharding pass needs no knowledge of adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np

from graphsim.graph import Step, Value
from graphsim.lora.config import LoraConfig
from graphsim.lora.schemes import Scheme
from graphsim.ops import Embedding, Gemm, LoraA, LoraAdd, LoraB, Sharding
from graphsim.ops.formats import FORMATS
from graphsim.ops.lora_kernels import LoraLookup
from graphsim.units import Num


def factors_of(op: Gemm, lora: LoraConfig, scheme: Scheme, rank: Num) -> tuple[LoraA, LoraB, LoraAdd]:
    """A, B and the ADD of one linear."""
    whole = op.head and scheme.whole_head
    row, column = op.split is Sharding.ROW, op.split is Sharding.COLUMN and not whole
    rows = op.m * lora.adapter_share
    a = LoraA(
        role=f"{op.role}.lora_a",
        m=rows,
        n=rank,
        k=op.k,
        split=Sharding.ROW if row else Sharding.REPLICATED if whole else scheme.column_a,
        units=op.units if row else 0.0,
        weights=FORMATS[lora.lora_dtype],
        activations=op.activations,
        adapters=lora.active_adapters,
        layer=op.layer,
    )
    b = replace(
        LoraB(**{f.name: getattr(a, f.name) for f in fields(a)}),
        role=f"{op.role}.lora_b",
        n=op.n,
        k=rank,
        split=Sharding.COLUMN if column else scheme.row_b if row else Sharding.REPLICATED,
        units=0.0 if row else op.units,
        parts=() if row else op.parts,
        bias=lora.bias,
    )
    live = np.minimum(rank, 1.0)
    joined = LoraAdd(
        role=f"{op.role}.lora_add",
        m=op.m,
        n=op.n,
        rows=rows * live,
        units=op.units,
        parts=op.parts,
        in_place=scheme.row_in_place and not whole,
        activations=op.activations,
        layer=op.layer,
    )
    return a, b, joined


def table_factors(name: str, op: Embedding, inputs: list[Value], lora: LoraConfig, rank: Num) -> Iterator[Step]:
    """A lookup in A as its own table, multiplied by B; whole on every device (PEFT 0.21, `tuners/lora/layer.py`)."""
    rows = op.tokens * lora.adapter_share
    live = np.minimum(lora.active_adapters, 1.0) * np.minimum(rank, 1.0)
    weights = FORMATS[lora.lora_dtype]
    ids = [value for value in inputs if ".lora_" not in value.node]
    yield name, op, inputs
    look_up = LoraLookup(
        role=f"{op.role}.lora_a", rows=rows * live, n=rank, vocabulary=op.entries, weights=weights,
        launches=live, activations=op.activations,
    )  # fmt: skip
    yield f"{name}.lora_a", look_up, ids
    b = LoraB(
        role=f"{op.role}.lora_b", m=rows, n=op.width, k=rank, split=Sharding.REPLICATED, weights=weights,
        activations=op.activations, adapters=lora.active_adapters,
    )  # fmt: skip
    yield f"{name}.lora_b", b, [Value(f"{name}.lora_a")]
    joined = LoraAdd(role=f"{op.role}.lora_add", m=op.tokens, n=op.width, rows=rows * live, activations=op.activations)
    yield f"{name}.lora_add", joined, [Value(name), Value(f"{name}.lora_b")]
