"""Descriptions of a checkpoint's tensors: names, number formats, shapes and bytes, without the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class StoredTensor(NamedTuple):
    """One tensor of a checkpoint.

    dtype: data type as named in its file (`BF16`, `F8_E4M3`, `Q4_K`); "" if only the name is known
    shape: shape in PyTorch's order; None if only the name is known
    bytes: its size in the file
    """

    dtype: str = ""
    shape: tuple[int, ...] | None = None
    bytes: int = 0

    @property
    def elements(self) -> int:
        """Number of elements; 0 if the shape is not known."""
        return 0 if self.shape is None else math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensors:
    """The tensors of a checkpoint by name.

    source: the folder or file, for messages
    total_bytes: bytes of all tensors
    complete: whether data types and shapes are known, not only names
    """

    source: str
    tensors: dict[str, StoredTensor]
    total_bytes: int
    complete: bool = True
