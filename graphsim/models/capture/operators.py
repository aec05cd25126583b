"""Custom operators that replace loops over tokens or chunks in a captured model: a scan and a causal convolution.

They are defined for fake and meta tensors only, including symbolic sizes, and compute no values. Their attributes are
those of `graphsim.ops.Scan` and `CausalConv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

Tensor = Any

torch.library.define(
    "graphsim::scan",
    "(Tensor values, Tensor[] inputs, Tensor[] learned, Tensor[] state, Tensor? step_bias, str kind, int channels,"
    " int[] state_shape, ScalarType state_dtype, bool matrix) -> (Tensor, Tensor)",
)
torch.library.define(
    "graphsim::causal_conv",
    "(Tensor values, Tensor weight, Tensor? bias, Tensor? state, int channels, int taps, int kept, str activation)"
    " -> (Tensor, Tensor)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """The state of a scan, and how it is computed.

    kind: name of the kernel
    channels: number of results per token
    state_shape: shape of one sequence's state; several states are concatenated
    state_dtype: data type of the state
    matrix: whether it is computed in chunks by matrix products; otherwise token by token
    """

    kind: str
    channels: int
    state_shape: tuple[int, ...]
    state_dtype: Any = torch.float32
    matrix: bool


def scan(
    recurrence: Recurrence,
    values: Tensor,
    inputs: Sequence[Tensor],
    learned: Sequence[Tensor] = (),
    state: Sequence[Tensor | None] = (),
    step_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Results in the layout of `values`, and the state after the last token.

    recurrence: state and kernel of the scan
    values: the values that are scanned
    inputs: further values read per token
    learned: learned weights of the recurrence
    state: states before the first token; empty or None if zero
    step_bias: bias of the time-step projection, added in the kernel
    """
    result: tuple[Tensor, Tensor] = torch.ops.graphsim.scan(
        values,
        list(inputs),
        list(learned),
        [part for part in state if part is not None],
        step_bias,
        recurrence.kind,
        recurrence.channels,
        list(recurrence.state_shape),
        recurrence.state_dtype,
        recurrence.matrix,
    )
    return result


def causal_conv(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor | None = None,
    *,
    kept: int | None = None,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Results in the layout of `values` [sequences, channels, tokens], and the last `kept` values of each channel.

    weight: [channels, taps]
    bias: [channels], or None
    state: values before the first token; None if zero
    kept: number of values to keep per channel, by default as many as there are taps
    activation: name of an activation applied to the result
    """
    channels, taps = int(weight.shape[0]), int(weight.shape[1])
    result: tuple[Tensor, Tensor] = torch.ops.graphsim.causal_conv(
        values, weight, bias, state, channels, taps, taps if kept is None else kept, activation or ""
    )
    return result


def _scan_shapes(
    values: Tensor,
    inputs: list[Tensor],
    learned: list[Tensor],
    state: list[Tensor],
    step_bias: Tensor | None,
    kind: str,
    channels: int,
    state_shape: list[int],
    state_dtype: Any,
    matrix: bool,
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    return out, values.new_empty((values.shape[0], *state_shape), dtype=state_dtype)


def _conv_shapes(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: Tensor | None,
    channels: int,
    taps: int,
    kept: int,
    activation: str,
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    return out, values.new_empty((values.shape[0], channels, kept))


torch.library.register_fake("graphsim::scan", _scan_shapes)
torch.library.register_fake("graphsim::causal_conv", _conv_shapes)
