"""Kernels of a trainer around its experts' GEMMs: chains of a recipe, by kind.

Copies of routed rows (`GatherRows` on their way to the experts, `CombineRows` on their way back), each expert's bias
where no GEMM adds it (`ExpertBias`), and the GEMMs' inputs in formats of fewer than 16 bits (`ExpertCast`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphsim.ops import Direction, Op
from graphsim.ops.experts import ExpertGemm, Permute
from graphsim.ops.gradients.experts import ExpertBiasGradient, ExpertInputGradient, ExpertWeightGradient
from graphsim.ops.modules import ModuleSteps
from graphsim.training.presence import there
from graphsim.training.recipe import Recipe
from graphsim.units import Num

NARROW = ("fp8", "fp4", "int8")
"""Formats of GEMMs whose inputs are converted before them."""


def expert_steps(recipe: Recipe, op: Op) -> Iterator[tuple[str, ModuleSteps]]:
    """The further kernels of an operation of experts: a suffix of their node's name, and the kernels."""
    for kind, elems, own_bytes in _parts(op):
        chain = next((chain for chain in recipe.chains if chain.kind == kind), None)
        if chain is None:
            continue
        backward = op.direction is Direction.BACKWARD
        kernels, moved = (
            (chain.backward_kernels, chain.backward_bytes) if backward else (chain.forward_kernels, chain.forward_bytes)
        )
        beyond = np.maximum(moved - own_bytes / np.maximum(elems, 1.0), 0.0)
        steps = ModuleSteps(
            role=f"{op.role}.{kind}", elems=elems, moved_bytes=beyond, launches=kernels * there(elems),
            activations=op.activations, layer=op.layer, adapter=op.adapter, direction=op.direction, stream=op.stream,
        )  # fmt: skip
        yield kind, steps


def _parts(op: Op) -> Iterator[tuple[str, Num, Num]]:
    """Kinds of chains that belong to an operation, the elements each works on, and the bytes that it moves itself."""
    if isinstance(op, Permute):
        yield "GatherRows" if op.gather else "CombineRows", op.rows * op.width, op.work().memory_bytes
    elif isinstance(op, ExpertBiasGradient):
        yield "ExpertBias", op.rows * op.width, 0.0
    elif isinstance(op, ExpertGemm) and not isinstance(op, ExpertWeightGradient):
        if op.bias and not isinstance(op, ExpertInputGradient):
            yield "ExpertBias", op.m * op.n, 0.0
        if op.matrix_format in NARROW:
            yield "ExpertCast", op.m * op.k, 0.0
