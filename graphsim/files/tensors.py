"""What a checkpoint's files say of their tensors: names, number formats, shapes, bytes; never the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class StoredTensor(NamedTuple):
    """One tensor of a checkpoint.

    dtype: as its file names it (`BF16`, `F8_E4M3`, `Q4_K`), "" where only the name is known
    shape: as PyTorch orders it, None where only the name is known
    bytes: that it takes in its file
    """

    dtype: str = ""
    shape: tuple[int, ...] | None = None
    bytes: int = 0

    @property
    def elements(self) -> int:
        """Entries of the shape; 0 where it is not known."""
        return 0 if self.shape is None else math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensors:
    """The tensors of a checkpoint by name.

    source: the folder or file, as messages name it
    total_bytes: of all tensors
    complete: whether formats and shapes are known, or only names
    """

    source: str
    tensors: dict[str, StoredTensor]
    total_bytes: int
    complete: bool = True
