"""Data-free input tensors whose dimensions may be named sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

Make = Callable[[Any, dict[int, str]], Any]
"""Makes a fake tensor from a meta tensor and the names of its symbolic dimensions: "batch", "length", "source"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blanks:
    """Creates the inputs of a model.

    make: creates a fake tensor with symbolic sizes
    hints: the number that stands for each named size while the model runs
    dtype: data type of features, that of the model
    """

    make: Make
    hints: Mapping[str, int]
    dtype: Any = torch.bfloat16

    def ids(self, *sizes: str | int) -> Any:
        """A tensor of integers: token ids, positions or boxes."""
        return self.tensor(*sizes, dtype=torch.long)

    def flags(self, *sizes: str | int) -> Any:
        """A Boolean mask."""
        return self.tensor(*sizes, dtype=torch.bool)

    def features(self, *sizes: str | int) -> Any:
        """Pixels, patches or audio features in the model's data type."""
        return self.tensor(*sizes, dtype=self.dtype)

    def tensor(self, *sizes: str | int, dtype: Any) -> Any:
        """A tensor; each of its sizes is a number or a name."""
        shape = [self.hints[size] if isinstance(size, str) else size for size in sizes]
        with unset_fake_temporarily():
            bare = torch.zeros(shape, dtype=dtype, device="meta")
        return self.make(bare, {i: size for i, size in enumerate(sizes) if isinstance(size, str)})
