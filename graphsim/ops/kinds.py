"""Groups of operations that share a colour and a line in every summary."""

from __future__ import annotations

from enum import Enum

from graphsim.ops.base import Op, OpType
from graphsim.ops.experts import ExpertGemm, Permute
from graphsim.ops.linear import Gemm
from graphsim.ops.update import UpdateWeights


class Kind(Enum):
    """Groups of operations that share a colour and a line in a summary."""

    ATTENTION = "attention"
    FEED_FORWARD = "feed-forward"
    PROJECTION = "other GEMM"
    ELEMENTWISE = "norm, residual"
    ENDS = "embedding, head, sampling"
    STATE = "state space"
    LORA = "LoRA"
    MERGE = "LoRA merge, once"
    COLLECTIVE = "communication"
    OPTIMIZER = "optimizer"
    OTHER = "other"


_KINDS = {
    OpType.INPUT: Kind.OTHER,
    OpType.EMBEDDING: Kind.ENDS,
    OpType.SAMPLE: Kind.ENDS,
    OpType.COPY: Kind.ENDS,
    OpType.ATTENTION: Kind.ATTENTION,
    OpType.ROPE: Kind.ATTENTION,
    OpType.KV_CACHE: Kind.ATTENTION,
    OpType.NORM: Kind.ELEMENTWISE,
    OpType.ADD: Kind.ELEMENTWISE,
    OpType.ELEMENTWISE: Kind.ELEMENTWISE,
    OpType.QUANTISE: Kind.ELEMENTWISE,
    OpType.ACTIVATION: Kind.FEED_FORWARD,
    OpType.ROUTER: Kind.FEED_FORWARD,
    OpType.EXPERTS: Kind.FEED_FORWARD,
    OpType.SCAN: Kind.STATE,
    OpType.CONVOLUTION: Kind.STATE,
    OpType.COLLECTIVE: Kind.COLLECTIVE,
}


def kind_of(op: Op) -> Kind:
    """The group of an operation: adapter, unless it only moves values or launches kernels; else by type and tags."""
    if op.adapter and op.op_type not in (OpType.COLLECTIVE, OpType.LAUNCH, OpType.INPUT):
        return Kind.MERGE if op.once else Kind.LORA
    if isinstance(op, UpdateWeights):
        return Kind.OPTIMIZER
    if isinstance(op, ExpertGemm | Permute):
        return Kind.FEED_FORWARD
    if isinstance(op, Gemm):
        if "attn" in op.tags:
            return Kind.ATTENTION
        if "ffn" in op.tags:
            return Kind.FEED_FORWARD
        return Kind.PROJECTION if op.linear else Kind.ENDS
    return _KINDS.get(op.op_type, Kind.OTHER)
