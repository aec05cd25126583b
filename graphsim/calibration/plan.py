"""Which kernels `measure` times: grids of GEMMs, attention, memory-bound kernels and host copies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from graphsim.cost.families.formats import MOVED, element_bytes
from graphsim.errors import ConfigError, choices_text

Row = dict[str, int | str]
"""One kernel in the columns of the reference schema, without its latency."""

COLUMNS = (
    "gpu", "framework", "op", "dtype", "kv_dtype", "m", "n", "k", "batch", "seq_len", "kv_len", "heads", "kv_heads",
    "head_dim", "window", "message_size", "kernel", "latency_us",
)  # fmt: skip
"""Columns of a file of measurements."""

KINDS = ("gemm", "lora", "context_attention", "generation_attention", "elementwise", "copy", "host_to_device")
"""What can be measured; `lora` rows are GEMMs of op `gemm` with a rank for n or k."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Grids to measure; a row per point that fits the memory.

    tokens: rows of the GEMMs
    sides: their n and k
    ranks: n or k of LoRA-shaped GEMMs
    heads: pairs of query and key-value heads
    lengths: prompt and context lengths
    batches: of decode
    elements: sizes of memory-bound kernels and copies
    """

    kinds: tuple[str, ...] = KINDS
    dtypes: tuple[str, ...] = ("bfloat16",)
    tokens: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)
    sides: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 6144, 8192, 14336, 28672)
    ranks: tuple[int, ...] = (8, 16, 32, 64, 128)
    heads: tuple[tuple[int, int], ...] = ((32, 32), (32, 8), (64, 8), (16, 2), (8, 1))
    head_dims: tuple[int, ...] = (64, 128)
    lengths: tuple[int, ...] = (16, 64, 256, 1024, 4096, 16384)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    elements: tuple[int, ...] = tuple(2**bits for bits in range(10, 30))

    def rows(self) -> list[Row]:
        """All points, in an order that does not change. Raises ConfigError for an unknown kind or dtype."""
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"measurement '{kind}' is not known; {choices_text(kind, KINDS)}")
        for dtype in self.dtypes:
            if dtype not in MOVED:
                raise ConfigError(f"dtype '{dtype}' cannot be measured; {choices_text(dtype, MOVED)}")
        return [row | {"dtype": dtype} for dtype in self.dtypes for kind in self.kinds for row in self._of_kind(kind)]

    def _of_kind(self, kind: str) -> Iterator[Row]:
        if kind in ("gemm", "lora"):
            pairs = itertools.product(self.sides, self.sides)
            thin = itertools.chain(itertools.product(self.ranks, self.sides), itertools.product(self.sides, self.ranks))
            for (n, k), m in itertools.product(pairs if kind == "gemm" else thin, self.tokens):
                yield {"op": "gemm", "m": m, "n": n, "k": k, "kernel": "torch.nn.functional.linear"}
        elif kind == "context_attention":
            yield from self._attention(kind, [(b, s, s) for b in self.batches[:4] for s in self.lengths])
        elif kind == "generation_attention":
            yield from self._attention(kind, [(b, 1, s) for b in self.batches for s in self.lengths])
        else:
            kernels = ("add", "activation", "norm") if kind == "elementwise" else ("copy",)
            for kernel, size in itertools.product(kernels, self.elements):
                yield {"op": kind, "message_size": size, "kernel": kernel}

    def _attention(self, op: str, phases: list[tuple[int, int, int]]) -> Iterator[Row]:
        for (heads, kv_heads), head_dim, (batch, seq_len, kv_len) in itertools.product(
            self.heads, self.head_dims, phases
        ):
            yield {
                "op": op, "batch": batch, "seq_len": seq_len, "kv_len": kv_len, "heads": heads,
                "kv_heads": kv_heads, "head_dim": head_dim, "window": 0,
                "kernel": "torch.nn.functional.scaled_dot_product_attention",
            }  # fmt: skip


def least_bytes(row: Row) -> float:
    """Memory that the operands and the result of a row need."""
    item = element_bytes(str(row["dtype"]), str(row["op"]))
    sizes = {name: float(value) for name, value in row.items() if not isinstance(value, str)}
    if row["op"] == "gemm":
        m, n, k = sizes["m"], sizes["n"], sizes["k"]
        return item * (m * k + n * k + m * n)
    if "heads" in row:
        queries = 2.0 * sizes["seq_len"] * sizes["heads"]
        return item * sizes["batch"] * sizes["head_dim"] * (queries + 2.0 * sizes["kv_len"] * sizes["kv_heads"])
    return item * 3.0 * sizes["message_size"]
