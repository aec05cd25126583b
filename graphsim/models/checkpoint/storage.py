"""How one weight is stored: its matrix, packed or not, its bias, and the auxiliary tensors of a quantised format.

Names of the parts: GPTQ and AWQ (`qweight`, `qzeros`, `scales`, `g_idx`), compressed-tensors 0.13 (`weight_packed`,
`weight_scale`, `weight_zero_point`, `weight_shape`), FP8 (`weight_scale_inv`, `input_scale`), bitsandbytes 0.48
(`weight.absmax`, `weight.quant_state.…`, `SCB`), MXFP4 in gpt-oss (`…_blocks`, `…_scales`), HQQ (`W_q`), and
ModelOpt (`weight_scale_2`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache

from graphsim.files.ggml import BLOCKS
from graphsim.files.tensors import StoredTensor
from graphsim.models.checkpoint.expected import Weight
from graphsim.ops.formats import Format
from graphsim.ops.linear import stored_bytes
from graphsim.units import amount_text

MAIN = ("weight", "qweight", "weight_packed", "W_q", "blocks", "")
"""Parts that hold the matrix itself; "" for a parameter that is not in a module."""

_BESIDE = re.compile(
    r"qzeros|scales?|biases|g_idx|perm|SCB|weight_format|(.*\.)?(?!global_scale)\w*_scale(_\w+)?|\w*zero_point|weight_shape|weight_g_idx"
    r"|weight\.(absmax|quant_map|nested_\w+|quant_state\..*|SCB|\w*scale\w*|\w*zero\w*)|\w*amax|zeros?|meta|\w*quantizer\..*"
)
"""Auxiliary parts of a quantised format, such as scales."""

_FLOATS = ("BF16", "F16", "F32", "F64")
_CACHE_SCALES = re.compile(r"(.*\.)?(k|v|q|kv|kv_cache|prob_output|k_proj\.output|v_proj\.output)_scale")

TOLERANCE = 0.03
"""Relative tolerance between the stored bytes of a quantised weight and those of its format."""


def is_cache_scale(path: str) -> bool:
    """Whether a tensor is a scale of the KV cache."""
    return _CACHE_SCALES.fullmatch(path) is not None


@cache
def part_kind(part: str) -> str:
    """The kind of a part: `main`, `bias` or `beside` (scales and the like); "" if none of these."""
    last = part.rpartition(".")[2]
    if part in MAIN or last in MAIN[:-1]:
        return "main"
    if last == "bias":
        return "bias"
    return "beside" if _BESIDE.fullmatch(part) else ""


@cache
def _bits(form: Format) -> tuple[str, int]:
    """The family of a format, and the bits per number without scales."""
    name = form.name
    if name in ("fp32", "bf16", "fp16"):
        return "float", 0
    if digits := re.match(r"(?:llm_)?int(\d+)", name):
        return "int", int(digits[1])
    if found := re.search(r"fp(\d+)|nf(\d+)", name):
        return "fp", int(found[1] or found[2])
    return "other", 0


def matrix_problem(weight: Weight, parts: Mapping[str, StoredTensor], matrix: tuple[int, int], elements: int) -> str:
    """The problem with the stored parts of a weight, as the end of a sentence; "" if there is none.

    matrix: outputs and inputs
    elements: number of elements of the matrix, or of all experts in a stack
    """
    mains = [tensor for part, tensor in parts.items() if part_kind(part) == "main"]
    if not mains:
        return f"holds {', '.join(parts) or 'nothing'}, but no weight"
    if any(tensor.shape is None for tensor in mains):
        return ""
    main, form = _together(mains), weight.format
    said = form.name if form else "16 bits or more"
    family, bits = _bits(form) if form is not None else ("float", 0)
    unpacked = main.dtype in _FLOATS or main.dtype in BLOCKS  # shapes of GGUF files count weights
    stored = 8.0 * main.bytes / elements if elements else 0.0
    fits = main.elements == elements and _is_matrix(main.shape or (), matrix, elements)
    if not (fits if unpacked else _is_packed(main.dtype, stored)):
        return f"has shape {list(main.shape or ())} in {main.dtype}, the structure asks for {_asked(matrix, elements)}"
    if main.dtype in BLOCKS:
        slices = form.name.split("+") if form is not None else []
        right = form is not None and (
            main.dtype.lower() in slices[1:] + slices[:-1] or abs(main.bytes - elements * form.bytes) < 1.0
        )
    elif main.dtype in _FLOATS or family == "float":
        right = main.dtype in _FLOATS and family == "float"
    else:
        right = _family(main.dtype, stored, family) == family and (family == "other" or abs(stored - bits) <= 0.5)
    if not right:
        return f"is stored in {main.dtype} ({amount_text(stored)} bits), the config says {said}"
    return "" if unpacked else _size_problem(form, parts, matrix, elements)


def _family(dtype: str, bits: float, said: str) -> str:
    """The family of packed numbers; the family that the config states if their type is ambiguous."""
    if dtype.startswith("F"):
        return "fp"
    return "int" if dtype in ("I32", "I8") and bits != 4 else said


def _together(mains: Sequence[StoredTensor]) -> StoredTensor:
    """Slices of a matrix concatenated along the outputs."""
    first, *others = mains
    if not others or any(not t.shape or t.shape[1:] != (first.shape or ())[1:] for t in mains):
        return first
    rows = sum(tensor.shape[0] for tensor in mains if tensor.shape)
    return StoredTensor(first.dtype, (rows, *(first.shape or ())[1:]), sum(tensor.bytes for tensor in mains))


def vector_problem(parts: Mapping[str, StoredTensor], beside_matrix: bool) -> str:
    """The problem with biases and learned vectors, which are never narrower than 16 bits; "" if there is none.

    beside_matrix: whether the main part is a matrix, which may be narrower
    """
    for part, tensor in parts.items():
        kind = part_kind(part)
        if kind == "beside" or (beside_matrix and kind == "main") or is_wide(tensor):
            continue
        return f"has its {part.rpartition('.')[2] or 'weight'} in {tensor.dtype}, the structure in 16 bits or more"
    return ""


def is_wide(tensor: StoredTensor) -> bool:
    """Whether a tensor holds floats of 16 bits or more; True if its type is unknown."""
    return tensor.dtype in _FLOATS or not tensor.dtype


def _asked(matrix: tuple[int, int], elements: int) -> str:
    stacked = elements // max(math.prod(matrix), 1)
    return str([stacked, *matrix] if stacked > 1 else list(matrix))


def _is_matrix(shape: tuple[int, ...], matrix: tuple[int, int], elements: int) -> bool:
    """Whether a shape is outputs x inputs, its transpose, a convolution's, or that of a stack of these."""
    if shape and shape[0] == matrix[0] and math.prod(shape[1:]) == matrix[1]:
        return True
    if shape and shape[-1] == matrix[1] and math.prod(shape[:-1]) == matrix[0]:  # a table over a grid
        return True
    if len(shape) == 3 and math.prod(shape) == math.prod(matrix):  # slices along outputs, or along inputs
        return shape[2] == matrix[1] or shape[1] == matrix[0]
    own = tuple(n for n in shape if n != 1) or (1,)
    if math.prod(matrix) != elements:  # a stack: one more dimension, or experts concatenated along the first
        return bool({*matrix} & {*own[-2:]})
    return sorted(own) == sorted(n for n in matrix if n != 1) or own == (elements,)


def _is_packed(dtype: str, bits: float) -> bool:
    """Whether elements may take this number of bits in this format."""
    if dtype in ("I32", "U32", "I64"):
        return 1.5 <= bits <= 8.5
    if dtype in ("U8", "I8", "BOOL", "F4"):
        return bits in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
    return dtype not in ("I16", "U16") and (bits == 8.0 or (dtype.startswith("F6") and bits == 6.0))


def _size_problem(
    form: Format | None, parts: Mapping[str, StoredTensor], matrix: tuple[int, int], elements: int
) -> str:
    """The problem if stored bytes, with scales and zero points, differ from the format's; detects other group sizes."""
    if form is None:
        return ""
    stored = sum(tensor.bytes for part, tensor in parts.items() if part_kind(part) != "bias")
    stacked = elements // max(math.prod(matrix), 1)
    expected = max(stacked, 1) * float(stored_bytes(form, *matrix))
    slack = 4.0 * sum(matrix) * max(stacked, 1) + 512.0  # scales of rows, orders of columns, code books
    if abs(stored - expected) <= TOLERANCE * expected + slack:
        return ""
    return f"takes {stored} bytes with its scales, {form.name} as the config says it takes {expected:.0f}"


def is_turned(parts: Mapping[str, StoredTensor], matrix: tuple[int, int]) -> bool:
    """Whether a float matrix is stored with inputs first, as in GPT-2's Conv1D."""
    for part, tensor in parts.items():
        if part_kind(part) == "main" and tensor.dtype in _FLOATS and tensor.shape is not None:
            return matrix[0] != matrix[1] and tensor.shape[-2:] == (matrix[1], matrix[0])
    return False
