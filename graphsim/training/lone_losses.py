"""Losses and MLPs alone: PyTorch's chains and Liger's kernels, over logits of `tokens` x `vocab`.

Counted off PyTorch's `derivatives.yaml`, `SoftMax.cu` and `NLLLoss2d.cu`, and Liger 0.2 to 0.7
(`ops/cross_entropy.py`, `fused_linear_cross_entropy.py`, `kl_div.py`, `jsd.py`, `tvd.py`, `swiglu.py`, `geglu.py`,
`embedding.py`). Losses fused with the head run in chunks of tokens and compute the gradients in the forward pass.
"""

from __future__ import annotations

import math

from graphsim.training.lone_kernels import Launch, Lone
from graphsim.training.lone_norms import WORKSPACE_BYTES, torch, triton
from graphsim.units import Num

SHARED_ROW_BYTES = 65536.0
"""Longest row that PyTorch's softmax holds in shared memory; longer ones are read three times."""
CACHED_ROW_BYTES = 98304.0
"""Bytes of a row from which a Triton program's second read comes from memory again: a row for each multiprocessor's
turn.
"""
NLL_ROW_S = 3.4e-8
"""PyTorch's nll_loss of logits in 2-d: one block of 32 threads walks the rows, about 1.1 us of latency each."""


def log_softmax(tokens: Num, vocab: float, bytes_: float) -> tuple[Launch, ...]:
    """Forward: one read or, of long rows, three, and one write."""
    reads = 1.0 if vocab * bytes_ <= SHARED_ROW_BYTES else 3.0
    return torch(tokens * vocab, ((reads + 1.0) * bytes_, "stream"))


def log_softmax_backward(tokens: Num, vocab: float, bytes_: float) -> tuple[Launch, ...]:
    """The gradient is summed over each row, then read again together with the result."""
    return torch(tokens * vocab, (4.0 * bytes_, "stream"))


def accumulated(elems: Num, bytes_: float) -> tuple[Launch, ...]:
    """A gradient added to what a leaf already has."""
    return torch(elems, (3.0 * bytes_, "stream"))


def cross_entropy(tokens: float, vocab: float, bytes_: float, provider: str) -> Lone:
    """Cross entropy of logits that are a leaf, whose gradient accumulates over runs."""
    elems = tokens * vocab
    if provider == "liger":
        again = bytes_ if vocab * bytes_ > CACHED_ROW_BYTES * 2.0 else 0.0
        return Lone(
            forward=(triton((2.0 * bytes_ + again) * elems), Launch(moved_bytes=4.0 * tokens, times=3.0)),
            backward=torch(elems, (2.0 * bytes_, "stream")),
            functions=1.0,
            waits=True,
            peak_bytes={"full": bytes_ * elems + 20.0 * tokens},
        )
    forward = (*log_softmax(tokens, vocab, bytes_), Launch(moved_bytes=8.0 * tokens, seconds=NLL_ROW_S * tokens))
    backward = torch(elems, (bytes_, "stream")) + log_softmax_backward(tokens, vocab, bytes_)
    return Lone(
        forward=forward,
        backward=backward + accumulated(elems, bytes_),
        peak_bytes={"full": 5.0 * bytes_ * elems + 8.0 * tokens},
    )


def fused_linear_cross_entropy(
    tokens: float, hidden: float, vocab: float, name: str, bytes_: float, provider: str
) -> Lone:
    """Head and loss with the head's weight as a leaf; the benchmark holds one head per implementation."""
    weight, states = vocab * hidden * bytes_, tokens * hidden * bytes_
    logits = tokens * vocab
    held = 3.0 * weight + 2.0 * states + 2.0 * WORKSPACE_BYTES
    if provider != "liger":
        loss = cross_entropy(tokens, vocab, bytes_, "huggingface")
        grown = accumulated(vocab * hidden, bytes_) + accumulated(tokens * hidden, bytes_)
        return Lone(
            forward=(_product(tokens, vocab, hidden, name), *loss.forward),
            backward=(
                *loss.backward[:2], _product(tokens, hidden, vocab, name), _product(vocab, hidden, tokens, name), *grown
            ),
            peak_bytes={"full": held + 3.0 * bytes_ * logits},
        )  # fmt: skip
    chunk = 2.0 ** math.ceil(math.log2(math.ceil(tokens / math.ceil(vocab / hidden))))
    chunks = math.ceil(tokens / chunk)
    parts = (
        _product(chunk, vocab, hidden, name, chunks), triton(3.0 * bytes_ * logits),
        _product(chunk, hidden, vocab, name, chunks), _product(vocab, hidden, chunk, name, chunks),
        Launch(moved_bytes=2.0 * weight * chunks, times=chunks),
    )  # fmt: skip
    return Lone(
        forward=parts,
        backward=accumulated(vocab * hidden, bytes_) + accumulated(tokens * hidden, bytes_),
        functions=1.0,
        waits=True,
        peak_bytes={"full": held + weight + states + 4.0 * chunk * vocab * bytes_},
    )


def kl_div(tokens: float, vocab: float, bytes_: float, provider: str) -> Lone:
    """KL divergence of a log-softmax, which takes part in the backward pass, and probabilities, in fp32."""
    elems = tokens * vocab
    below = (*log_softmax_backward(tokens, vocab, 4.0), *accumulated(elems, 4.0))
    if provider == "liger":
        return Lone(
            forward=(triton(8.0 * elems),), backward=(triton(8.0 * elems), *below), functions=1.0,
            peak_bytes={"full": 6.0 * 4.0 * elems},
        )  # fmt: skip
    return Lone(
        forward=torch(elems, (12.0, "stream"), (12.0, "stream"), (12.0, "stream"), (4.0, "reduce")),
        backward=torch(elems, (4.0, "stream"), (8.0, "broadcast")) + below,
        peak_bytes={"full": 7.0 * 4.0 * elems},
    )


def jsd(tokens: float, vocab: float, bytes_: float, provider: str) -> Lone:
    """Generalised Jensen-Shannon divergence of two log-softmaxes, in fp32."""
    elems = tokens * vocab
    below = (*log_softmax_backward(tokens, vocab, 4.0), *accumulated(elems, 4.0))
    if provider == "liger":
        return Lone(
            forward=(triton(16.0 * elems), *torch(elems, (4.0, "reduce"))), backward=below, functions=1.0,
            peak_bytes={"full": 7.0 * 4.0 * elems},
        )  # fmt: skip
    one, two = (8.0, "stream"), (12.0, "stream")
    return Lone(
        forward=torch(elems, one, one, two, *(2 * (one, one, two, two, (4.0, "reduce")))),
        backward=torch(elems, (4.0, "stream"), two, one, two, two, two, two, one, two, two, two, one, two) + below,
        peak_bytes={"full": 17.0 * 4.0 * elems},
    )


def tvd(tokens: float, vocab: float, bytes_: float, provider: str) -> Lone:
    """Total variation distance of two softmaxes, in fp32."""
    elems = tokens * vocab
    below = (*log_softmax_backward(tokens, vocab, 4.0), *accumulated(elems, 4.0))
    if provider == "liger":
        return Lone(
            forward=(triton(12.0 * elems),), backward=below, functions=1.0, peak_bytes={"full": 6.0 * 4.0 * elems}
        )
    one, two = (8.0, "stream"), (12.0, "stream")
    return Lone(
        forward=torch(elems, two, one, one, (4.0, "reduce")),
        backward=torch(elems, (8.0, "broadcast"), one, two) + below,
        peak_bytes={"full": 7.0 * 4.0 * elems},
    )


def fused_linear_jsd(tokens: float, hidden: float, vocab: float, name: str, bytes_: float, provider: str) -> Lone:
    """Student's and teacher's heads and their divergence; only the student learns."""
    weight, states, logits = vocab * hidden * bytes_, tokens * hidden * bytes_, tokens * vocab
    head = _product(tokens, vocab, hidden, name)
    gradients = (_product(tokens, hidden, vocab, name), _product(vocab, hidden, tokens, name))
    if provider != "liger":
        loss = jsd(tokens, vocab, 4.0, "torch")
        scaled = torch(logits, (2.0 * bytes_, "stream"))
        soft = log_softmax(tokens, vocab, bytes_)
        return Lone(
            forward=(head, head, *scaled, *scaled, *soft, *soft, *loss.forward),
            backward=(*loss.backward[:-1], *scaled, *gradients),
            peak_bytes={"full": 5.0 * weight + 3.0 * states + (4.0 * bytes_ + 40.0) * logits},
        )
    chunk = 2.0 ** math.ceil(math.log2(math.ceil(tokens / math.ceil(vocab / hidden))))
    chunks = math.ceil(tokens / chunk)
    once = (
        _product(chunk, vocab, hidden, name, 2.0 * chunks), _product(chunk, hidden, vocab, name, chunks),
        _product(vocab, hidden, chunk, name, chunks), Launch(moved_bytes=3.0 * weight * chunks, times=chunks),
        triton(48.0 * logits),
    )  # fmt: skip
    return Lone(
        forward=once,
        backward=accumulated(vocab * hidden, bytes_) + accumulated(tokens * hidden, bytes_),
        functions=1.0,
        waits=True,
        peak_bytes={"full": 6.0 * weight + 4.0 * states + chunk * vocab * 24.0},
    )


def gated_mlp(tokens: float, hidden: float, inner: float, name: str, bytes_: float, provider: str) -> Lone:
    """gate, up, activation, multiplication, down: SwiGLU's and GEGLU's, weights leaves whose gradients accumulate."""
    states, middle, weight = tokens * hidden * bytes_, tokens * inner * bytes_, hidden * inner * bytes_
    wide, narrow = _product(tokens, inner, hidden, name), _product(tokens, hidden, inner, name)
    fused = provider == "liger"
    count = tokens * inner
    act: tuple[Launch, ...] = (triton(3.0 * bytes_ * count),)
    act_back: tuple[Launch, ...] = (triton(5.0 * bytes_ * count),)
    if not fused:
        act = torch(count, (2.0 * bytes_, "stream"), (3.0 * bytes_, "stream"))
        act_back = torch(count, (3.0 * bytes_, "stream"), (3.0 * bytes_, "stream"), (3.0 * bytes_, "stream"))
    weights = (_product(hidden, inner, tokens, name, 2.0), _product(inner, hidden, tokens, name))
    below = (wide, narrow, narrow, *weights, *torch(tokens * hidden, (3.0 * bytes_, "stream"), (bytes_, "stream")))
    held = 6.0 * weight + 2.0 * WORKSPACE_BYTES
    moments = (
        (3.0 * middle + 7.0 * states + weight,) if fused
        else (7.0 * middle + 4.0 * states, 6.0 * middle + 5.0 * states + weight)
    )  # fmt: skip
    kept = (3.0 if fused else 4.0) * middle
    return Lone(
        forward=(wide, wide, *act, narrow),
        backward=(*below, *act_back, *accumulated(3.0 * hidden * inner, bytes_)),
        functions=1.0 if fused else 0.0,
        peak_bytes={"full": held + max(moments), "forward": held - 3.0 * weight + 2.0 * states + kept},
    )


def embedding(tokens: float, hidden: float, vocab: float, bytes_: float, provider: str) -> Lone:
    """Rows of a table; its gradient is as large as the table, and the benchmark draws the incoming one inside."""
    rows, table = tokens * hidden * bytes_, vocab * hidden * bytes_
    drawn = Launch(moved_bytes=rows)
    forward: tuple[Launch, ...] = (Launch(moved_bytes=2.0 * rows),)
    spread = Launch(moved_bytes=3.0 * rows, times=6.0)
    if provider == "liger":
        forward, spread = (triton(2.0 * rows),), triton(3.0 * rows)
    return Lone(
        forward=forward,
        backward=(drawn, Launch(moved_bytes=table), spread, *accumulated(vocab * hidden, bytes_)),
        functions=1.0 if provider == "liger" else 0.0,
        peak_bytes={"full": 3.0 * table + 2.0 * rows + 8.0 * tokens},
    )


def _product(m: Num, n: Num, k: Num, name: str, times: Num = 1.0) -> Launch:
    return Launch(product=(m, n, k, name), times=times)
