"""The GEMMs of experts, as shares of the measured blocks, and the operations within these blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.families.moe_work import MoeShape
from graphsim.cost.roofline import roofline
from graphsim.hardware import Hardware
from graphsim.ops import ExpertActivation, ExpertGemm, Op, Permute, Route, Sharding
from graphsim.units import Num

_BESIDE_EXPERTS = (Route, Permute, ExpertActivation)
"""Operations included in the measured kernels of experts in addition to the GEMMs; all others of the family have their
roofline.
"""


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """Nothing for what is included in the time of the GEMMs."""
    if is_within_block(op, parameters):
        return 0.0 * roofline(op, hardware).busy_s
    if not isinstance(op, ExpertGemm) or not op.weights.moe or not parameters["moe"]:
        return None
    return expert_s(op, kernel_s)


def is_within_block(op: Op, parameters: Parameters) -> bool:
    """Whether the time of an operation is included in that of the experts' GEMMs, as their kernels were measured."""
    return isinstance(op, _BESIDE_EXPERTS) and bool(parameters["moe"])


def expert_shape(op: ExpertGemm) -> MoeShape:
    """The measured block that a GEMM belongs to, from the choice of experts to the sum of their results.

    A block of two matrices instead of three counts as one of three that is two thirds as wide.
    """
    width = op.n / (2.0 if op.gated else 1.0) if op.split is Sharding.COLUMN else op.k
    hidden = op.k if op.split is Sharding.COLUMN else op.n
    held, mine = float(op.of + op.copies), np.maximum(op.experts, 1e-9)
    return MoeShape(
        m=op.tokens, hidden=hidden, inter=width if op.gated else width * (2.0 / 3.0), topk=float(op.chosen),
        experts=held, ep=held / mine, dtype=op.weights.moe, busiest=op.hottest,
        weight_bytes=op.weights.bytes, activation_bytes=op.activations.bytes, distribution="uniform",
        hit=op.hit * held / mine if op.skew or op.copies else None,
    )  # fmt: skip


def expert_s(op: ExpertGemm, kernel_s: Callable[[MoeShape], Num]) -> Num:
    """The share of the block's seconds for one of its GEMMs, in proportion to its weights."""
    share = 1.0 / (3.0 if op.gated else 2.0)
    if op.split is Sharding.COLUMN:
        share = 1.0 - share
    return np.where(np.greater(op.m * op.n * op.k, 0), share * kernel_s(expert_shape(op)), 0.0)
