"""Classification of rows: what each operation does, and which rows depend on weights or request data."""

from __future__ import annotations

from collections.abc import Iterable

from graphsim.models.capture.rows import Row

_POINTWISE = (
    "add sub mul div neg abs exp expm1 log log1p sqrt rsqrt pow square reciprocal sin cos tan tanh atan sigmoid "
    "silu gelu relu relu6 leaky_relu elu selu hardtanh hardsigmoid hardswish softplus mish log_sigmoid_forward "
    "threshold clamp clamp_min clamp_max minimum maximum where masked_fill eq ne lt le gt ge logical_and "
    "logical_or logical_not bitwise_and bitwise_or bitwise_not isnan isinf isfinite nan_to_num round floor ceil "
    "trunc sign sgn erf erfinv rsub remainder fmod addcmul addcdiv lerp xlogy floor_divide true_divide copysign "
    "dropout native_dropout polar prelu _prelu_kernel add_ sub_ mul_ div_ neg_ exp_ clamp_ masked_fill_ sigmoid_ "
    "tanh_ relu_ silu_ sqrt_ pow_ logical_not_"
)
POINTWISE = frozenset(_POINTWISE.split())
"""Elementwise operations, including broadcasting ones."""

_COPIES = (
    "clone _to_copy contiguous copy copy_ cat stack constant_pad_nd repeat repeat_interleave roll flip "
    "_unsafe_index slice_scatter select_scatter tril triu fill_ zero_ zeros_like ones_like empty_like full_like "
    "new_zeros new_ones new_empty new_full zeros ones empty full scalar_tensor arange linspace masked_scatter"
)
COPIES = frozenset(_COPIES.split())
"""Operations that copy or create elements without computing."""

_ALONG_ROWS = (
    "mean sum amax amin max min var std var_mean prod norm linalg_vector_norm _softmax _log_softmax _safe_softmax "
    "logsumexp cumsum all any"
)
ALONG_ROWS = frozenset(_ALONG_ROWS.split())
"""Reductions of each row; they are fused if their result leads to a value as wide as the rows."""

_NONLINEAR = (
    "silu gelu relu relu6 tanh sigmoid exp softplus mish leaky_relu elu selu hardsigmoid hardswish "
    "log_sigmoid_forward pow square sqrt rsqrt erf sigmoid_ relu_ silu_ prelu _prelu_kernel logsigmoid glu clamp"
)
NONLINEAR = frozenset(_NONLINEAR.split())
"""Operations that make an elementwise node an activation."""

_SUMS = "add add_ sub sub_ rsub"
SUMS = frozenset(_SUMS.split())


def is_fusable(row: Row) -> bool:
    """Whether a row can be fused with a pointwise row that reads its result."""
    if row.kind == "pointwise":
        return True
    if row.kind == "softmax":
        return True
    return row.kind == "aten" and (row.op in POINTWISE or row.op in COPIES or row.op in ALONG_ROWS)


def is_copy(row: Row) -> bool:
    """Whether a row only copies elements."""
    return row.kind == "aten" and row.op in COPIES


def live(rows: Iterable[Row], parameters: frozenset[str]) -> set[str]:
    """Names of the rows that depend on weights or on the request's values, unlike positions and masks."""
    found: set[str] = set()
    for row in rows:
        if any(_is_live(taken.source, found, parameters) for taken in row.inputs):
            found.add(row.name)
    return found


def _is_live(source: str, found: set[str], parameters: frozenset[str]) -> bool:
    if source in found:
        return True
    kind, _, name = source.partition(":")
    return (kind == "weight" and name in parameters) or kind in ("state", "float", "passed")
