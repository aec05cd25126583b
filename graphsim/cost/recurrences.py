"""Convolutions and scans in a graph, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsim.cost.families.recurrent_work import RecurrentShape
from graphsim.ops import CausalConv, Scan
from graphsim.ops.scan import STATE_BYTES
from graphsim.units import Num

NEARLY_NONE = 1e-9
"""A divisor instead of zero sequences."""


def recurrent_shape(op: CausalConv | Scan, phase: str, batch: Num, tokens: Num) -> RecurrentShape:
    """The kernel of `batch` equal sequences with as many tokens in all."""
    seq_len = tokens / np.maximum(batch, NEARLY_NONE)
    if isinstance(op, CausalConv):
        return RecurrentShape(
            step="convolution", phase=phase, mechanism=op.mechanism, batch=batch, seq_len=seq_len,
            channels=op.channels, taps=op.taps, activation_bytes=op.activations.bytes, prepared=True,
        )  # fmt: skip
    return RecurrentShape(
        step="scan", phase=phase, mechanism=op.mechanism, batch=batch, seq_len=seq_len,
        heads=op.heads, value_dim=op.channels / op.heads, key_heads=op.key_heads, key_dim=op.state,
        state_bytes=STATE_BYTES, activation_bytes=op.activations.bytes,
    )  # fmt: skip


def recurrent_s(op: CausalConv | Scan, kernel_s: Callable[[RecurrentShape], Num]) -> Num:
    """Seconds in a graph: engines run one kernel for prompts and one for generating sequences of a step.

    vLLM, `model_executor/layers/mamba`, and SGLang, `layers/attention/fla`, split a step so.
    """
    if op.decode:
        return kernel_s(recurrent_shape(op, "generation", op.sequences, op.tokens))
    prompts, tokens = op.sequences - op.decoding, op.tokens - op.decoding
    prompts_s = kernel_s(recurrent_shape(op, "context", prompts, tokens))
    if isinstance(op.decoding, float) and op.decoding == 0.0:
        return prompts_s
    return prompts_s + kernel_s(recurrent_shape(op, "generation", op.decoding, op.decoding))
