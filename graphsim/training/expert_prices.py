"""Experts in training: GEMMs of many rows, one per expert, and the permutation of the rows before and after.

Serving's measured blocks are kernels for few rows. Trainers multiply each expert's rows as an ordinary GEMM, one after
another on a few streams, or as one grouped kernel of the same speed (TransformerEngine,
pytorch/module/grouped_linear.py on cuBLAS; Megatron-LM, core/transformer/moe/experts.py), and permute rows in kernels
of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from graphsim.cost.base import Cost
from graphsim.ops import Gemm, Op
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.gradients.experts import ExpertWeightGradient
from graphsim.units import Num


def is_of_experts(op: Op) -> bool:
    """Whether serving prices an operation as part of a measured block of experts."""
    return op.family == "moe"


def expert_cost(op: Op, price: Callable[[Gemm], Cost], own: Callable[[Op], Cost]) -> Cost:
    """The cost of an expert GEMM as that of all its experts' GEMMs; of the operations around them, by their own work.

    price: of one expert's product
    own: of an operation by its own work
    """
    if not isinstance(op, ExpertGemm):
        return own(op)
    one, count = one_product(op)
    cost = price(one)
    return replace(
        cost, busy_s=cost.latency_s * count - cost.launch_s, compute_s=cost.compute_s * count,
        memory_s=cost.memory_s * count,
    )  # fmt: skip


def one_product(op: ExpertGemm) -> tuple[Gemm, Num]:
    """The GEMM of one expert, with the rows spread evenly, and the number of experts.

    At most as many experts as rows are reached.
    """
    count = np.maximum(np.minimum(op.experts, op.m), 1e-9)
    rows = op.m / count
    m, n, k = (op.k, op.n, rows) if isinstance(op, ExpertWeightGradient) else (rows, op.n, op.k)
    return Gemm(
        role=op.role, m=m, n=n, k=k, weights=op.weights, activations=op.activations, layer=op.layer,
        direction=op.direction,
    ), count  # fmt: skip
