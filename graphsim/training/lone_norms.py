"""Norms, rotary embedding and activations alone: HF's chains of kernels and Liger's single ones.

Bytes for each element are counted off transformers' LlamaRMSNorm and `apply_rotary_pos_emb`, PyTorch's
`layer_norm_kernel.cu` and `derivatives.yaml`, and Liger 0.2 to 0.7 (`ops/rms_norm.py`, `layer_norm.py`, `rope.py`,
`fused_add_rms_norm.py`, `relu_squared.py`); `width`: bytes of an element.
"""

from __future__ import annotations

from graphsim.training.lone_kernels import Launch, Lone
from graphsim.units import Num

WORKSPACE_BYTES = 8.125 * 2.0**20
"""Of cuBLAS, allocated by the first GEMM of a process."""
TWICE_READ = 32768.0
"""Bytes of a row whose second read in PyTorch's layer norm, forward, misses every cache."""
LEAST_READ = 0.4
"""Cost of the second read of short rows, as a share of a read from memory."""
NORM_CALLS = (3.0, 13.0)
"""Calls of Liger's norms that launch nothing: settings, empty tensors, the device's properties."""


def triton(moved: Num, kind: str = "stream") -> Launch:
    """One launch of a Triton kernel."""
    return Launch(moved_bytes=moved, kind=kind, by="triton")


def walked(elems: Num, per: float, width: float) -> Launch:
    """A Triton kernel with one program for each multiprocessor, which walks rows of `width`."""
    return Launch(moved_bytes=per * elems, by="triton", walked=elems, width=width)


def torch(elems: Num, *passes: tuple[float, str]) -> tuple[Launch, ...]:
    """Kernels of PyTorch, each by its bytes per element and its kind."""
    return tuple(Launch(moved_bytes=elems * per, kind=kind) for per, kind in passes)


def rms_norm(rows: float, width: float, bytes_: float, provider: str) -> Lone:
    """Liger's or LlamaRMSNorm's; the weight is fp32, so HF's result is as well."""
    elems = rows * width
    if provider != "huggingface":
        return Lone(
            forward=(triton(2.0 * bytes_ * elems),),
            backward=(walked(elems, 3.0 * bytes_, width), *_small(2)),
            functions=1.0,
            host_ops=NORM_CALLS,
            peak_bytes=_all((5.0 * bytes_ + 8.0 * (bytes_ < 4.0)) * elems),
        )
    half = bytes_ < 4.0
    widen = [(bytes_ + 4.0, "cast")] if half else []
    forward = torch(elems, *widen, *RMS_FORWARD, *widen, (bytes_ + 4.0, "broadcast"))
    backward = torch(elems, *widen, (bytes_ + 8.0, "broadcast"), (4.0, "reduce"), (8.0, "broadcast"))
    backward += torch(elems, *widen, *widen, *RMS_BACKWARD, *widen)
    kept = 20.0 if half else 24.0
    return Lone(
        forward=(*forward, *_small(2)), backward=(*backward, *_small(6)),
        peak_bytes=_all(2.0 * kept * elems if half else kept * elems),
    )  # fmt: skip


RMS_FORWARD = ((8.0, "stream"), (4.0, "reduce"), (8.0, "broadcast"))
"""pow, mean, product with the reciprocal root, in fp32."""
RMS_BACKWARD = (
    (8.0, "broadcast"), (12.0, "stream"), (4.0, "reduce"), (4.0, "stream"), (8.0, "stream"), (8.0, "stream"),
    (12.0, "stream"), (12.0, "stream"),
)  # fmt: skip
"""dy times root; dy times x and its sum; the mean's spread; 2 x (a copy, a product); its product; the sum."""


def fused_add_rms_norm(rows: float, width: float, bytes_: float, provider: str) -> Lone:
    """A residual's sum and its norm, in fp32: fused, Liger's norm followed by a weight, or HF's chain."""
    elems = rows * width
    if provider == "liger_fused_add_rms_norm":
        return Lone(
            forward=(triton(4.0 * bytes_ * elems),),
            backward=(walked(elems, 4.0 * bytes_, width), *_small(2)),
            functions=1.0,
            host_ops=NORM_CALLS,
            peak_bytes=_all(9.0 * bytes_ * elems + 132.0 * 4.0 * width),
        )
    add = torch(elems, (12.0, "stream"))
    weight = torch(elems, (8.0, "broadcast"))
    weight_back = torch(elems, (12.0, "broadcast"), (4.0, "reduce"), (8.0, "broadcast"))
    join = torch(elems, (12.0, "stream"))
    if provider == "liger_rms_norm":
        return Lone(
            forward=(*add, triton(8.0 * elems), *weight),
            backward=(*weight_back, walked(elems, 12.0, width), *_small(2), *join),
            functions=1.0,
            host_ops=NORM_CALLS,
            peak_bytes=_all(13.0 * 4.0 * elems),
        )
    return Lone(
        forward=(*add, *torch(elems, *RMS_FORWARD), *_small(2), *weight),
        backward=(*weight_back, *torch(elems, *RMS_BACKWARD), *_small(6), *join),
        peak_bytes=_all(13.0 * 4.0 * elems),
    )


def layer_norm(rows: float, width: float, bytes_: float, provider: str) -> Lone:
    """PyTorch's own or Liger's."""
    elems, row = rows * width, width * bytes_
    if provider == "liger":
        return Lone(
            forward=(triton(2.0 * bytes_ * elems),),
            backward=(walked(elems, 3.0 * bytes_, width), *_small(3)),
            functions=1.0,
            host_ops=NORM_CALLS,
            peak_bytes=_all(5.0 * bytes_ * elems + 8.0 * rows),
        )
    again = bytes_ * min(max(row / TWICE_READ, LEAST_READ), 1.0)
    return Lone(
        forward=torch(elems, (2.0 * bytes_ + again, "stream")),
        backward=torch(elems, (5.0 * bytes_, "stream"), (2.0 * bytes_, "stream")) + _small(1),
        peak_bytes=_all(5.0 * bytes_ * elems + 8.0 * rows),
    )


def group_norm(rows: float, channels: float, length: float, bytes_: float, provider: str) -> Lone:
    """Over groups of channels: statistics in one pass, the result in another."""
    elems = rows * channels * length
    passes = (3.0 * bytes_, "stream")
    if provider == "liger":
        return Lone(
            forward=(triton(3.0 * bytes_ * elems),), backward=(walked(elems, 5.0 * bytes_, length), *_small(2)),
            functions=1.0, peak_bytes=_all(5.0 * bytes_ * elems),
        )  # fmt: skip
    return Lone(
        forward=torch(elems, passes), backward=torch(elems, (2.0 * bytes_, "stream"), passes) + _small(3),
        peak_bytes=_all(5.0 * bytes_ * elems),
    )  # fmt: skip


def rope(tokens: float, heads: float, kv_heads: float, head_dim: float, bytes_: float, provider: str) -> Lone:
    """Queries and keys of one sequence, stored by tokens and viewed by heads."""
    q, k = tokens * heads * head_dim, tokens * kv_heads * head_dim
    elems = q + k
    angles = 2.0 * tokens * head_dim * bytes_
    if provider == "liger":
        one = triton(2.0 * bytes_ * elems)
        return Lone(
            forward=(one,), backward=(one,), functions=1.0, host_ops=(6.0, 14.0),
            peak_bytes=_all(2.0 * bytes_ * elems + angles + WORKSPACE_BYTES),
        )  # fmt: skip
    slow = "strided_16_bit" if bytes_ < 4.0 else "broadcast"
    chain = [(2.0, slow), (1.0, slow), (2.0, "cast"), (2.0, slow), (3.0, slow)]
    back = [(2.0, slow)] * 2 + [(1.0, slow)] + [(1.0, "stream"), (1.0, slow)] * 2 + [(3.0, slow), (3.0, "stream")]
    pair = [torch(part, *((bytes_ * per, kind) for per, kind in chain)) for part in (q, k)]
    pair_back = [torch(part, *((bytes_ * per, kind) for per, kind in back)) for part in (q, k)]
    return Lone(
        forward=pair[0] + pair[1], backward=pair_back[0] + pair_back[1], host_ops=(11.0, 16.0),
        peak_bytes=_all(bytes_ * (3.0 * elems + 3.0 * q + k) + angles + WORKSPACE_BYTES),
    )  # fmt: skip


def dyt(rows: float, width: float, bytes_: float, provider: str) -> Lone:
    """Dynamic tanh (arXiv 2503.10622): gamma * tanh(alpha * x) + beta."""
    elems = rows * width
    if provider != "torch":
        return Lone(
            forward=(triton(2.0 * bytes_ * elems),), backward=(walked(elems, 3.0 * bytes_, width), *_small(3)),
            functions=1.0, peak_bytes=_all(5.0 * bytes_ * elems),
        )  # fmt: skip
    one, two, three = (bytes_, "reduce"), (2.0 * bytes_, "broadcast"), (3.0 * bytes_, "stream")
    return Lone(
        forward=torch(elems, two, (2.0 * bytes_, "stream"), two, two),
        backward=torch(elems, one, three, one, two, three, three, one, two),
        peak_bytes=_all(9.0 * bytes_ * elems),
    )  # fmt: skip


def relu_squared(rows: float, width: float, bytes_: float, provider: str) -> Lone:
    """max(x, 0) squared; the memory benchmark of Liger 0.7 runs on a single row."""
    elems = rows * width
    row = max(width * bytes_, 512.0)
    if provider == "liger":
        return Lone(
            forward=(triton(2.0 * bytes_ * elems),), backward=(triton(3.0 * bytes_ * elems),), functions=0.5,
            peak_bytes=_all(5.0 * row),
        )  # fmt: skip
    two, three = (2.0 * bytes_, "stream"), (3.0 * bytes_, "stream")
    return Lone(
        forward=torch(elems, two, two), backward=torch(elems, two, two, three, three), peak_bytes=_all(8.0 * row)
    )


def softmax(rows: float, width: float, bytes_: float, provider: str) -> Lone:
    """Over rows."""
    elems = rows * width
    moved, back = 2.0 * bytes_ * elems, 3.0 * bytes_ * elems
    if provider == "liger":
        return Lone(
            forward=(triton(moved),), backward=(triton(back),), functions=1.0, peak_bytes=_all(5.0 * bytes_ * elems)
        )
    return Lone(
        forward=(Launch(moved_bytes=moved),), backward=(Launch(moved_bytes=back),),
        peak_bytes=_all(5.0 * bytes_ * elems),
    )  # fmt: skip


def _small(count: float) -> tuple[Launch, ...]:
    """Kernels on a number per row or per column: their launches count, not their bytes."""
    return (Launch(moved_bytes=1024.0 * count, times=count),)


def _all(peak: Num) -> dict[str, Num]:
    return {"full": peak}
