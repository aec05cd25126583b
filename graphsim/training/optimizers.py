"""Optimizers as data: their states per trained weight, and the traffic and flops of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.files.reading import Fields, load_mapping
from graphsim.units import Num, short

SHAPES = ("elements", "factored", "projected", "orthogonal")
"""Kinds of a matrix's states: one per element; second moments of rows and columns (Adafactor); those of a projection
onto `rank` directions (GaLore); a momentum that is made orthogonal (Muon)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """GEMMs of one shape that an optimizer runs in a step: `times` of (m x k) by (k x n), in 16 bits."""

    m: Num
    n: Num
    k: Num
    times: float = 1.0

    @property
    def flops(self) -> Num:
        """2 m n k for each."""
        return 2.0 * self.m * self.n * self.k * self.times


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """An optimizer's states, traffic and flops per trained parameter.

    state_bytes: in addition to weight, gradient and master copy, where the weights it updates (or their master copies)
        are in fp32
    state_bytes_16: the same if they are in 16 bits
    moved_bytes: read and written in one step, gradient, weights and states in 16 bits
    moved_fp32_bytes: the same in fp32, without the 16-bit weights to which a master copy is written
    temporary_bytes: bytes of 16-bit weights allocated only during the step (a `foreach` implementation's copies)
    temporary_fp32_bytes: the same for fp32 weights
    largest_temporary_bytes: the same for one tensor at a time, counted once, for the largest
    kernels: launches for each group of tensors (a `foreach` list)
    tensor_kernels: for each tensor
    matrix_s: seconds that the host waits for each matrix, whose decomposition it asks for in every step
    pageable: whether states may lie in the host's memory
    small_elems: tensors with fewer elements have states of `small_state_bytes`; tables (embeddings) have them too where
        `wide_tables`
    shape: of SHAPES, for matrices
    factor_bytes: for each row and column of a `factored` one
    rank: directions of a `projected` one
    refresh_steps: steps after which its projection is computed again, by a
        singular value decomposition if `decomposes`
    iterations: of Newton and Schulz on an `orthogonal` one
    others: the optimizer of non-matrix weights and of tables, if it is a different one
    source: source of the figures
    """

    name: str
    state_bytes: float
    moved_bytes: float
    moved_fp32_bytes: float
    state_bytes_16: float | None = None
    temporary_bytes: float = 0.0
    temporary_fp32_bytes: float = 0.0
    largest_temporary_bytes: float = 0.0
    kernels: float = 10.0
    tensor_kernels: float = 0.0
    matrix_s: float = 0.0
    pageable: bool = False
    small_elems: float = 0.0
    small_state_bytes: float = 0.0
    wide_tables: bool = False
    shape: str = "elements"
    factor_bytes: float = 0.0
    rank: float = 0.0
    refresh_steps: float = 0.0
    decomposes: bool = False
    iterations: float = 0.0
    others: str = ""
    source: str = ""

    def element_bytes(self, fp32: bool = True) -> float:
        """Bytes of states per parameter, independent of its tensor; fp32: whether fp32 weights are updated."""
        return self.state_bytes if fp32 or self.state_bytes_16 is None else self.state_bytes_16

    def held_bytes(self, n: Num, k: Num = 1.0, *, fp32: bool = True, table: bool = False) -> Num:
        """Bytes of states of one tensor, n x k of a matrix (k = 1: a vector); table: an embedding or a head."""
        other = self._other(k, table)
        if other is not None:
            return other.held_bytes(n, k, fp32=fp32, table=table)
        per = self.element_bytes(fp32)
        if self.small_elems or (table and self.wide_tables):
            return np.where((n * k < self.small_elems) | (table and self.wide_tables), self.small_state_bytes, per) * (
                n * k
            )
        if self.shape == "projected":
            rank, low, high = self._projected(n, k)
            kept = per * rank * high + (low * rank * (4.0 if fp32 else 2.0) if self.decomposes else 0.0)
            return np.where(np.less(rank, low), kept, per * n * k)[()]
        if self.shape == "factored":
            return np.where(np.minimum(n, k) > 1.0, self.factor_bytes * (n + k), self.factor_bytes * n * k)[()] + (
                per * n * k
            )
        return per * n * k

    def traffic_bytes(self, n: Num, k: Num = 1.0, *, fp32: bool = True, table: bool = False) -> Num:
        """Bytes that elementwise kernels of one step move for one tensor; those of `products` are not in it."""
        other = self._other(k, table)
        if other is not None:
            return other.traffic_bytes(n, k, fp32=fp32, table=table)
        return (self.moved_fp32_bytes if fp32 else self.moved_bytes) * n * k

    def products(self, n: Num, k: Num = 1.0, *, table: bool = False) -> tuple[Product, ...]:
        """GEMMs of one step for one tensor; none for a vector and for weights that another optimizer updates."""
        if self.shape not in ("projected", "orthogonal") or self._other(k, table) is not None:
            return ()
        rank, low, high = self._projected(n, k)
        if self.shape == "projected":
            return Product(m=rank, n=high, k=low), Product(m=low, n=high, k=rank)
        return (
            Product(m=low, n=low, k=high, times=self.iterations),
            Product(m=low, n=low, k=low, times=self.iterations),
            Product(m=low, n=high, k=low, times=self.iterations),
        )

    def decomposition_flops(self, n: Num, k: Num = 1.0, *, table: bool = False) -> Num:
        """Flops of the singular value decompositions of one matrix, spread evenly over the steps between them.

        6 a b^2 + 20 b^3 of an a x b matrix with a >= b (Golub and Van Loan, Matrix Computations, figure 8.6.1, R-SVD
        with both sets of vectors)
        """
        if not self.decomposes or self._other(k, table) is not None:
            return 0.0
        _, low, high = self._projected(n, k)
        return (6.0 * high * low**2 + 20.0 * low**3) / self.refresh_steps

    def waited_s(self, k: Num = 1.0, *, table: bool = False) -> float:
        """Seconds that the host waits for one tensor; none for a vector and for weights that another optimizer
        updates.
        """
        vector = isinstance(k, int | float) and k <= 1.0
        return 0.0 if vector or self._other(k, table) is not None else self.matrix_s

    def _projected(self, n: Num, k: Num) -> tuple[Num, Num, Num]:
        low, high = np.minimum(n, k), np.maximum(n, k)
        return np.minimum(self.rank, low), low, high

    def _other(self, k: Num, table: bool) -> Optimizer | None:
        """The optimizer of a tensor that this one has no rule for."""
        vector = isinstance(k, int | float) and k <= 1.0
        return load_optimizer(self.others) if self.others and (table or vector) else None


ALIASES = {
    "adamw_torch": "adamw_foreach", "adamw_hf": "adamw_foreach", "adamw_torch_fused": "adamw_fused",
    "adamw_bnb_8bit": "adamw_8bit", "adamw8bit": "adamw_8bit", "adam_8bit": "adamw_8bit", "pagedadamw8bit":
    "paged_adamw_8bit", "pagedadamw": "paged_adamw_32bit", "paged_adamw": "paged_adamw_32bit", "adam": "adamw",
    "lora+": "adamw", "loraplus": "adamw", "lora_plus": "adamw", "lion_32bit": "lion", "lion_bnb_8bit": "lion_8bit",
    "galore_adamw": "galore", "galore_adamw_layerwise": "galore", "apollo_adamw": "apollo",
}  # fmt: skip
"""Further names, most of them those of transformers' `optim`."""

RECIPES_OWN = "adamw"
"""AdamW in the recipe's implementation."""


def list_optimizers() -> list[str]:
    """Names of the known optimizers; `adamw` means the recipe's own AdamW."""
    return sorted(_known())


def load_optimizer(ref: str | Mapping[str, Any] | Optimizer, default: str = "adamw_fused") -> Optimizer:
    """An optimizer by its name, by its name and rank (`galore:128`), or from a mapping that starts from a `name`.

    default: the recipe's meaning of `adamw` and None
    Raises ConfigError naming what was found and what is allowed.
    """
    if isinstance(ref, Optimizer):
        return ref
    if ref is None:
        return load_optimizer(default)
    if isinstance(ref, Mapping):
        fields = Fields(ref, "the optimizer given as a mapping")
        return _read(fields, load_optimizer(fields.text("name", default), default))
    if not isinstance(ref, str) or not ref.strip():
        raise ConfigError(f"optimizer = {short(ref)} is not allowed; expected a name or a mapping")
    name, _, rank = ref.strip().lower().replace("-", "_").partition(":")
    name = ALIASES.get(name, name)
    found = _known().get(default if name == RECIPES_OWN and default.startswith("adamw") else name)
    if name == RECIPES_OWN and found is None:
        found = _known()["adamw_fused"]
    if found is None:
        names = [*list_optimizers(), RECIPES_OWN]
        raise ConfigError(f"optimizer = {short(ref)} is not known; {choices_text(name, names)}")
    return _ranked(found, rank, ref) if rank else found


def _ranked(found: Optimizer, rank: str, ref: str) -> Optimizer:
    if found.shape != "projected" or not rank.isdigit() or not int(rank):
        raise ConfigError(
            f"optimizer = {short(ref)} is not allowed; expected a name, and a rank from 1 behind it only for "
            f"{', '.join(name for name, each in _known().items() if each.shape == 'projected')}"
        )
    return replace(found, rank=float(rank))


def _known() -> dict[str, Optimizer]:
    path = Path(__file__).parent / "optimizers.yaml"
    return _from_file(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _from_file(path: Path, _modified: int) -> dict[str, Optimizer]:
    entries = Fields(load_mapping(path), str(path))
    found = {}
    for name in entries.keys():  # noqa: SIM118 - Fields is not a mapping
        blank = Optimizer(name=name, state_bytes=0.0, moved_bytes=0.0, moved_fp32_bytes=0.0)
        found[name] = _read(entries.mapping(name), blank)
    entries.finish()
    return found


def _read(fields: Fields, base: Optimizer) -> Optimizer:
    """An optimizer over another one. Problems are raised where the fields are of a mapping of its own."""
    found: dict[str, Any] = {}
    for key in _NUMBERS:
        found[key] = fields.number(key, getattr(base, key), most=1e6)
    for key in ("pageable", "wide_tables", "decomposes"):
        found[key] = fields.flag(key, getattr(base, key))
    found["shape"] = fields.text("shape", base.shape, SHAPES)
    found["others"] = fields.text("others", base.others)
    found["source"] = fields.text("source", base.source)
    if "name" in fields or fields.asked("name"):
        fields.finish()
    return replace(base, **found)


_NUMBERS = (
    "state_bytes", "state_bytes_16", "moved_bytes", "moved_fp32_bytes", "temporary_bytes", "temporary_fp32_bytes",
    "largest_temporary_bytes", "kernels", "tensor_kernels", "matrix_s", "small_elems", "small_state_bytes",
    "factor_bytes", "rank", "refresh_steps", "iterations",
)  # fmt: skip
