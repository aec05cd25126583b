"""Tensors without data whose sizes have names: what the inputs of a step are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

Make = Callable[[Any, dict[int, str]], Any]
"""Fakes a meta tensor; the names say which dimensions are symbols: "batch", "length", "source"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blanks:
    """Makes inputs of a model.

    hints: what each named size is while the model runs
    dtype: of features, the model's own
    """

    make: Make
    hints: Mapping[str, int]
    dtype: Any = torch.bfloat16

    def ids(self, *sizes: str | int) -> Any:
        """Token ids, positions or boxes: whole numbers."""
        return self.tensor(*sizes, dtype=torch.long)

    def flags(self, *sizes: str | int) -> Any:
        """A mask."""
        return self.tensor(*sizes, dtype=torch.bool)

    def features(self, *sizes: str | int) -> Any:
        """Pixels, patches or sound in the model's dtype."""
        return self.tensor(*sizes, dtype=self.dtype)

    def tensor(self, *sizes: str | int, dtype: Any) -> Any:
        """A tensor of which each size is a number or a name."""
        shape = [self.hints[size] if isinstance(size, str) else size for size in sizes]
        with unset_fake_temporarily():
            bare = torch.zeros(shape, dtype=dtype, device="meta")
        return self.make(bare, {i: size for i, size in enumerate(sizes) if isinstance(size, str)})
