"""Timing kernels on this machine with PyTorch, into a file that `calibrate` reads.

On CUDA every kernel is captured into a graph and replayed, so host launches do not count; on a CPU calls are timed
back to back. Each row is appended when it is done, so an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from graphsim.calibration.plan import COLUMNS, Plan, Row, least_bytes
from graphsim.errors import ConfigError
from graphsim.files.present import is_present
from graphsim.files.written import write_text

Progress = Callable[[int, int, str], None]
"""Called with rows done, rows in all, and a description of the current row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to time one kernel: `repeats` batches of at least `batch_s`, cut short by `limit_s` for slow ones."""

    repeats: int = 5
    batch_s: float = 0.01
    limit_s: float = 2.0
    memory_share: float = 0.5


def measure(
    path: str | Path,
    *,
    plan: Plan | None = None,
    device: str | None = None,
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> int:
    """Time the kernels of a plan, append each to the CSV at `path`, and return how many rows are new.

    device: `cuda` (where there is one, the default) or `cpu`. Rows that the file already holds are
    skipped, and so are rows that need more than `effort.memory_share` of the free memory.
    Raises ConfigError without PyTorch, for an absent device, and for a file of other columns.
    """
    torch, target = _torch(), Path(path)
    if target.suffix != ".csv":
        raise ConfigError(f"{target}: measurements are appended row by row; expected a name ending in .csv")
    bench = _Bench(torch, device, effort or Effort())
    known = _done(target)
    rows = [row for row in (plan or Plan()).rows() if _key(row) not in known and bench.can_run(row)]
    with target.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if not known and file.tell() == 0:
            writer.writeheader()
        for number, row in enumerate(rows):
            if progress:
                progress(number, len(rows), " ".join(f"{name}={value}" for name, value in row.items()))
            latency_us = round(1e6 * bench.latency_s(row), 4)
            writer.writerow(row | {"gpu": bench.name, "framework": "torch", "latency_us": latency_us})
            file.flush()
    if progress:
        progress(len(rows), len(rows), "done")
    return len(rows)


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError:
        raise ConfigError(
            "measuring needs PyTorch, which is not installed; install it with: pip install torch"
        ) from None


def _key(row: Any) -> tuple[str, ...]:
    return tuple(
        "" if row.get(name) is None else str(row[name])
        for name in COLUMNS
        if name not in ("gpu", "framework", "latency_us")
    )


def _done(path: Path) -> set[tuple[str, ...]]:
    """Keys of the rows that the file holds; a last line that was cut off is removed."""
    if not is_present(path) or path.stat().st_size == 0:
        return set()
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        write_text(path, text)
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ConfigError(f"{path}: its columns are not those of measured kernels; expected {', '.join(COLUMNS)}")
    return {_key(row) for row in reader}


class _Bench:
    """One device and the way to time a kernel on it."""

    def __init__(self, torch: Any, device: str | None, effort: Effort) -> None:
        """Raises ConfigError for an unavailable device."""
        self.torch, self.effort = torch, effort
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if self.device not in ("cpu", "cuda") or (self.device == "cuda" and not torch.cuda.is_available()):
            raise ConfigError(
                f"device '{self.device}' is not available; allowed: cpu, or cuda where PyTorch finds a GPU"
            )
        self.cuda = self.device == "cuda"
        self.name = torch.cuda.get_device_name().lower().replace(" ", "-") if self.cuda else "cpu"

    def can_run(self, row: Row) -> bool:
        """Whether the row fits the memory, and this device can run it at all."""
        if row["op"] == "host_to_device" and not self.cuda:
            return False
        free = self.torch.cuda.mem_get_info()[0] if self.cuda else 8 * 2**30
        return least_bytes(row) < self.effort.memory_share * free

    def latency_s(self, row: Row) -> float:
        """Median time of one call."""
        with self.torch.no_grad():
            call = self._call(row)
            return self._cuda_s(call) if self.cuda else self._cpu_s(call)

    def _call(self, row: Row) -> Callable[[], Any]:
        torch, dtype = self.torch, getattr(self.torch, str(row["dtype"]))
        ints = {name: int(value) for name, value in row.items() if not isinstance(value, str)}

        def values(*shape: int, device: str = self.device) -> Any:
            return torch.randn(*shape, device=device, dtype=torch.float32).to(dtype)

        if row["op"] == "gemm":
            x, w = values(ints["m"], ints["k"]), values(ints["n"], ints["k"])
            return lambda: torch.nn.functional.linear(x, w)
        if "heads" in ints:
            return self._attention(ints, values)
        if row["op"] == "host_to_device":
            host = values(ints["message_size"], device="cpu").pin_memory()
            there = torch.empty_like(host, device=self.device)
            return lambda: there.copy_(host, non_blocking=True)
        width = min(ints["message_size"], 4096)
        x = values(ints["message_size"] // width, width)
        y, out, w = torch.ones_like(x), torch.empty_like(x), torch.ones(width, device=self.device, dtype=dtype)
        kernels: dict[str, Callable[[], Any]] = {
            "copy": lambda: out.copy_(x),
            "add": lambda: torch.add(x, y, out=out),
            "norm": lambda: torch.nn.functional.rms_norm(x, (width,), w),
            "activation": lambda: torch.mul(x, y, out=out),  # the traffic of a gated activation fused into one kernel
        }
        return kernels[str(row["kernel"])]

    def _attention(self, ints: dict[str, int], values: Callable[..., Any]) -> Callable[[], Any]:
        """Scaled dot-product attention; causal if the queries are the whole context."""
        q = values(ints["batch"], ints["heads"], ints["seq_len"], ints["head_dim"])
        k, v = (values(ints["batch"], ints["kv_heads"], ints["kv_len"], ints["head_dim"]) for _ in "kv")
        causal = ints["seq_len"] > 1
        attend = self.torch.nn.functional.scaled_dot_product_attention
        return lambda: attend(q, k, v, is_causal=causal, enable_gqa=ints["heads"] != ints["kv_heads"])

    def _cpu_s(self, call: Callable[[], Any]) -> float:
        def batch_s(count: int) -> float:
            start = time.perf_counter()
            for _ in range(count):
                call()
            return time.perf_counter() - start

        first = batch_s(1)
        if first > self.effort.limit_s:
            return first
        one = min(first, batch_s(1), batch_s(1))
        count = max(1, round(self.effort.batch_s / max(one, 1e-7)))
        return median(batch_s(count) / count for _ in range(self.effort.repeats))

    def _cuda_s(self, call: Callable[[], Any]) -> float:
        torch = self.torch
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        count = max(1, min(100, round(self.effort.batch_s / max(start.elapsed_time(end) * 1e-3, 1e-6))))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(count):
                call()
        graph.replay()
        found = []
        for _ in range(self.effort.repeats):
            start.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            found.append(start.elapsed_time(end) * 1e-3 / count)
        return float(median(found))
