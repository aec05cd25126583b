"""The weights of matrix products, and what the time of a call hangs on besides its rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from graphsim.cost.families.formats import Format
from graphsim.units import Num

T = TypeVar("T")


class Weights:
    """w[k, n] of one product, or of many; what is worked out for them once serves calls with any rows."""

    def __init__(self, n: Num, k: Num, form: Format) -> None:
        self.n, self.k, self.form = n, k, form
        self._kept: dict[Hashable, Any] = {}

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made under this key, at the first asking."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    @cached_property
    def at_least_one(self) -> Weights:
        """The same with sides of at least one."""
        return Weights(np.maximum(self.n, 1.0), np.maximum(self.k, 1.0), self.form)

    @cached_property
    def shorter_side(self) -> Num:
        """Zero where there is nothing to multiply by."""
        return np.minimum(self.n, self.k)

    @cached_property
    def bytes(self) -> Num:
        """Of the weights with their scales."""
        return self.form.w_bytes * self.k * self.n

    @cached_property
    def row_bytes(self) -> Num:
        """Of one row's input, and of its result in 16 bits."""
        return self.form.x_bytes * self.k + 2.0 * self.n

    @cached_property
    def row_flops(self) -> Num:
        """Of one row; a multiply-add is 2 flops."""
        return 2.0 * self.n * self.k

    @cached_property
    def log2_n(self) -> Num:
        """log2 of the outputs."""
        return np.log2(self.n)

    @cached_property
    def log2_k(self) -> Num:
        """log2 of the inputs."""
        return np.log2(self.k)

    @cached_property
    def wide_tiles(self) -> Num:
        """Tiles of 256 columns side by side."""
        return np.ceil(self.n / 256.0)
