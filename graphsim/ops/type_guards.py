"""Operations told apart by their type, by code that runs for every graph: most have neither experts nor collectives.

The classes are imported only by what makes such operations or reads their fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from graphsim.ops.base import Op, OpType

if TYPE_CHECKING:
    from graphsim.ops.collectives import AllReduce, Collective
    from graphsim.ops.experts import ExpertGemm
    from graphsim.ops.launch import Launch


def is_collective(op: object) -> TypeGuard[Collective]:
    """Whether it is communication among devices."""
    return isinstance(op, Op) and op.op_type is OpType.COLLECTIVE


def is_all_reduce(op: object) -> TypeGuard[AllReduce]:
    """Whether it is an all-reduce and nothing else."""
    if not is_collective(op):
        return False
    from graphsim.ops.collectives import AllReduce

    return type(op) is AllReduce


def is_launch(op: object) -> TypeGuard[Launch]:
    """Whether it stands for the host's launches of kernels."""
    return isinstance(op, Op) and op.op_type is OpType.LAUNCH


def is_expert_gemm(op: object) -> TypeGuard[ExpertGemm]:
    """Whether it is a GEMM of experts."""
    return isinstance(op, Op) and op.op_type is OpType.EXPERTS
