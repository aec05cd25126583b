"""Operations told apart by code that runs for every graph, most of which have neither experts nor collectives.

An operation's type is asked first: only where it fits is the class imported, and asked as well, since an operation of a
user's may be of any type.
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
    if not _is_of(op, OpType.COLLECTIVE):
        return False
    from graphsim.ops.collectives import Collective

    return isinstance(op, Collective)


def is_all_reduce(op: object) -> TypeGuard[AllReduce]:
    """Whether it is an all-reduce and nothing else."""
    if not _is_of(op, OpType.COLLECTIVE):
        return False
    from graphsim.ops.collectives import AllReduce

    return type(op) is AllReduce


def is_launch(op: object) -> TypeGuard[Launch]:
    """Whether it stands for the host's launches of kernels."""
    if not _is_of(op, OpType.LAUNCH):
        return False
    from graphsim.ops.launch import Launch

    return isinstance(op, Launch)


def is_expert_gemm(op: object) -> TypeGuard[ExpertGemm]:
    """Whether it is a GEMM of experts."""
    if not _is_of(op, OpType.EXPERTS):
        return False
    from graphsim.ops.experts import ExpertGemm

    return isinstance(op, ExpertGemm)


def _is_of(op: object, kind: OpType) -> bool:
    return isinstance(op, Op) and op.op_type is kind
