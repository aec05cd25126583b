"""Eager modules: an operation that a serving engine fuses into one kernel runs as the separate kernels of the
framework's module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from graphsim.lora.calls import PLAIN, REPEATED, ModuleCall
from graphsim.ops import Activation, Attention, ExpertGemm, KvCache, ModuleSteps, Norm, Op, Route, Sample
from graphsim.ops.bitsandbytes import BesideProduct
from graphsim.ops.overrides import OverriddenGemm, OverridingGemm
from graphsim.units import Num

BYTES = 2.0
"""Bytes per element of the format that the entries' bytes refer to."""


def kind_of(op: Op) -> str:
    """The entry of an operation: its class; norms by whether they learn a shift, activations by whether they gate."""
    if isinstance(op, Norm):
        return "RMSNorm" if op.vectors < 2 else "LayerNorm"
    if isinstance(op, OverriddenGemm | OverridingGemm):
        return "Gemm"
    gated = isinstance(op, Activation) and op.reads > 1
    return "GatedActivation" if gated else type(op).__name__


def calls_base(op: Op) -> bool:
    """Whether the framework runs it as the base model's: a linear whose weights or input an adapter changed still
    counts as one.
    """
    return not op.adapter or isinstance(op, OverridingGemm)


def by_kind(calls: Iterable[ModuleCall]) -> dict[str, ModuleCall]:
    """The entries by kind of operation."""
    return {call.kind: call for call in calls}


def further(op: Op, calls: Mapping[str, ModuleCall]) -> Iterator[tuple[str, ModuleSteps]]:
    """The additional kernels of an operation's module, by the last part of their node's name."""
    call = calls.get(kind_of(op), PLAIN)
    if isinstance(op, Attention) and REPEATED in calls:
        repeats, grouped = calls[REPEATED], np.greater(op.heads, op.kv_heads)[()]
        spread = op.kv_tokens * op.heads * (op.head_dim + op.value_dim) * grouped
        yield "repeat_kv", steps_of(op, repeats.kernels * grouped, spread, repeats.bytes)
    if call.kernels > 1:
        kernels = np.maximum(call.kernels * turns(op) - 1.0, 0.0)
        yield "steps", steps_of(op, kernels, _elements(op), call.bytes)


def turns(op: Op) -> Num:
    """How often the module runs for one operation: once for each expert that tokens reach, or over which the module
    loops.

    Of a linear and its replacement GEMM one runs.
    """
    if isinstance(op, OverriddenGemm | OverridingGemm | BesideProduct):
        return np.minimum(op.m * op.n, 1.0)
    if isinstance(op, ExpertGemm):
        return op.hit
    return op.experts if isinstance(op, Route) else 1.0


def steps_of(op: Op, kernels: Num, elems: Num, moved_bytes: Num) -> ModuleSteps:
    """Further kernels of an operation's module; `moved_bytes` of an element in 16 bits."""
    return ModuleSteps(
        role=f"{op.role}.steps", elems=elems, moved_bytes=moved_bytes * op.activations.bytes / BYTES, launches=kernels,
        activations=op.activations, layer=op.layer, adapter=op.adapter,
    )  # fmt: skip


def _elements(op: Op) -> Num:
    """Elements of the further kernels: attention's scores, masked ones too, the cache, the logits, else the result."""
    if isinstance(op, Attention):
        return op.heads * op.query_tokens * op.kv_tokens / np.maximum(op.sequences, 1.0)
    if isinstance(op, KvCache):
        return op.kept_tokens * op.kv_heads * op.width
    return op.rows * op.vocab if isinstance(op, Sample) else op.out_elems
