"""Convolutions and scans along sequences, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.families.recurrent_work import RecurrentShape
from graphsim.cost.roofline import compute_s
from graphsim.hardware import Hardware
from graphsim.ops import CausalConv, Op, Scan
from graphsim.ops.scan import STATE_BYTES
from graphsim.units import Num

NEARLY_NONE = 1e-9
"""A divisor instead of zero sequences."""


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """Limited by the device's peaks."""
    if not isinstance(op, CausalConv | Scan) or not op.mechanism or not parameters["recurrent"]:
        return None
    return np.maximum(recurrent_s(op, kernel_s), compute_s(op, op.work(), hardware))


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
