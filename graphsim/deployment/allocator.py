"""Actual GPU memory of tensors under PyTorch's caching allocator.

Requests above 1 MiB come out of segments of 20 MiB, from 10 MiB on out of their own, rounded up to 2 MiB; the rest of
a block is split off only if it is larger than 1 MiB, otherwise it is wasted. Smaller requests share segments of 2 MiB
and are rounded up to 512 bytes (PyTorch, c10/cuda/CUDACachingAllocator.cpp).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable

MIB = 2**20
SMALL, SMALL_SEGMENT, LARGE_SEGMENT = MIB, 2 * MIB, 20 * MIB
OWN_SEGMENT, ROUND_LARGE, ROUND_SMALL = 10 * MIB, 2 * MIB, 512


def allocated_bytes(requests: Iterable[float]) -> float:
    """Bytes of the blocks that serve some requests one after another, none of them freed."""
    small, large = _Pool(SMALL_SEGMENT, ROUND_SMALL - 1), _Pool(LARGE_SEGMENT, SMALL)
    total = 0
    for request in requests:
        size = math.ceil(request / ROUND_SMALL) * ROUND_SMALL
        total += (small if size <= SMALL else large).take(size)
    return float(total)


class _Pool:
    """Free blocks of one kind of segment; the smallest one that is large enough is taken."""

    def __init__(self, segment: int, unsplit: int) -> None:
        self._segment, self._unsplit = segment, unsplit
        self._free: list[int] = []

    def take(self, size: int) -> int:
        """The size of the block that serves a request."""
        if not size:
            return 0
        at = bisect.bisect_left(self._free, size)
        block = self._free.pop(at) if at < len(self._free) else self._new(size)
        rest = block - size
        if rest <= self._unsplit:
            return block
        bisect.insort(self._free, rest)
        return size

    def _new(self, size: int) -> int:
        return self._segment if size < OWN_SEGMENT else math.ceil(size / ROUND_LARGE) * ROUND_LARGE
