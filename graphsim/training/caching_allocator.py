"""PyTorch's caching allocator on a CUDA device: the memory that it reserves for a program's tensors.

Rules as in c10/cuda/CUDACachingAllocator.cpp (pytorch/pytorch, @001074d; `round_size`, `get_allocation_size`,
`get_free_block`, `should_split`, `try_merge_blocks`, `release_cached_blocks`), with its defaults and one stream: sizes
are multiples of 512 bytes; up to 1 MiB they come from segments of 2 MiB, below 10 MiB from segments of 20 MiB, above
from segments of their own in multiples of 2 MiB. The smallest free block that is large enough is taken, and split if
more than 1 MiB remains (512 bytes in small segments). Free neighbours are merged. Segments are returned to the device
only when it runs out of memory, and only unused ones.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, inf

from graphsim.errors import GraphsimError

MIB = 2**20
ROUNDING = 512
SMALL, SMALL_SEGMENT = MIB, 2 * MIB
LARGE, LARGE_SEGMENT = 10 * MIB, 20 * MIB
ROUNDING_OF_LARGE = 2 * MIB

Event = tuple[str, float]
"""("name", bytes) allocates a tensor; ("name", 0) frees it."""


class OutOfMemory(GraphsimError):
    """The device has no room for a segment, even after all unused ones were returned."""


@dataclass(slots=True, eq=False)
class Block:
    """A part of a segment. before, behind: its neighbours."""

    address: int
    size: int
    small: bool
    used: bool = False
    before: Block | None = None
    behind: Block | None = None

    @property
    def whole(self) -> bool:
        """Whether it is its segment's only one."""
        return self.before is None and self.behind is None


@dataclass(slots=True)
class CachingAllocator:
    """The state of the allocator of one device.

    capacity_bytes: of the device
    expandable: `expandable_segments:True`, one segment of each kind that grows by pages
    """

    capacity_bytes: float = inf
    expandable: bool = False
    allocated_bytes: int = 0
    reserved_bytes: int = 0
    peak_allocated_bytes: int = 0
    peak_reserved_bytes: int = 0
    _blocks: dict[str, Block] = field(default_factory=dict)
    _free: dict[bool, list[tuple[int, int, Block]]] = field(default_factory=lambda: {True: [], False: []})
    _ends: dict[bool, Block] = field(default_factory=dict)
    _next_address: int = 0

    def allocate(self, name: str, size: float) -> None:
        """Memory for a tensor of `size` bytes. Raises OutOfMemory."""
        if name in self._blocks:
            raise GraphsimError(f"'{name}' is allocated already; free it first")
        wanted = max(ROUNDING, ROUNDING * ceil(size / ROUNDING))
        small = wanted <= SMALL
        block = self._best_fit(wanted, small) or self._grown(wanted, small)
        if self._splits(block, wanted):
            self._split(block, wanted)
        block.used = True
        self._blocks[name] = block
        self.allocated_bytes += block.size
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)

    def free(self, name: str) -> None:
        """Give a tensor's memory back to the allocator, which keeps it."""
        block = self._blocks.pop(name, None)
        if block is None:
            raise GraphsimError(f"'{name}' is not allocated, so it cannot be freed")
        self.allocated_bytes -= block.size
        block.used = False
        for neighbour in (block.before, block.behind):
            if neighbour is not None and not neighbour.used:
                self._merge(block, neighbour)
        self._put(block)

    def replay(self, events: Iterable[Event]) -> None:
        """Allocate and free in the order of the events."""
        for name, size in events:
            if size:
                self.allocate(name, size)
            else:
                self.free(name)

    def _best_fit(self, wanted: int, small: bool) -> Block | None:
        free = self._free[small]
        place = bisect_left(free, (wanted, -1))
        if self.expandable and place + 1 < len(free) and free[place][2] is self._ends.get(small):
            place += 1  # the block at the growing end counts with its largest possible size
        return free.pop(place)[2] if place < len(free) else None

    def _put(self, block: Block) -> None:
        insort(self._free[block.small], (block.size, block.address, block))

    def _take(self, block: Block) -> None:
        free = self._free[block.small]
        del free[bisect_left(free, (block.size, block.address))]

    def _splits(self, block: Block, wanted: int) -> bool:
        left = block.size - wanted
        return left >= ROUNDING if block.small or self.expandable else left > SMALL

    def _split(self, block: Block, wanted: int) -> None:
        rest = Block(block.address + wanted, block.size - wanted, block.small, False, block, block.behind)
        if block.behind is not None:
            block.behind.before = rest
        block.behind, block.size = rest, wanted
        if self._ends.get(block.small) is block:
            self._ends[block.small] = rest
        self._put(rest)

    def _merge(self, block: Block, neighbour: Block) -> None:
        self._take(neighbour)
        if self._ends.get(block.small) is neighbour:
            self._ends[block.small] = block
        block.size += neighbour.size
        if neighbour is block.before:
            block.address, block.before = neighbour.address, neighbour.before
            if block.before is not None:
                block.before.behind = block
        else:
            block.behind = neighbour.behind
            if block.behind is not None:
                block.behind.before = block

    def _grown(self, wanted: int, small: bool) -> Block:
        if self.expandable:
            return self._expanded(wanted, small)
        size = self._segment_size(wanted, small)
        self._reserve(size)
        block = Block(self._next_address, size, small)
        self._next_address += size
        return block

    @staticmethod
    def _segment_size(wanted: int, small: bool) -> int:
        if small:
            return SMALL_SEGMENT
        return LARGE_SEGMENT if wanted < LARGE else ROUNDING_OF_LARGE * ceil(wanted / ROUNDING_OF_LARGE)

    def _expanded(self, wanted: int, small: bool) -> Block:
        page = SMALL_SEGMENT if small else LARGE_SEGMENT
        end = self._ends.get(small)
        there = 0 if end is None or end.used else end.size
        added = page * ceil((wanted - there) / page)
        self._reserve(added)
        if end is None or end.used:
            start = 0 if end is None else end.address + end.size
            block = Block(start, added, small, False, end)
            if end is not None:
                end.behind = block
            self._ends[small] = block
            return block
        self._take(end)
        end.size += added
        return end

    def _reserve(self, size: int) -> None:
        if self.reserved_bytes + size > self.capacity_bytes:
            self._return_unused()
        if self.reserved_bytes + size > self.capacity_bytes:
            raise OutOfMemory(
                f"the device of {self.capacity_bytes / 1e9:.4g} GB has {self.reserved_bytes / 1e9:.4g} GB reserved, of "
                f"which {self.allocated_bytes / 1e9:.4g} GB are used; a segment of {size / 1e9:.4g} GB does not fit"
            )
        self.reserved_bytes += size
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)

    def _return_unused(self) -> None:
        for small, free in self._free.items():
            if self.expandable:
                self._return_pages(small)
                continue
            self.reserved_bytes -= sum(size for size, _, block in free if block.whole)
            self._free[small] = [each for each in free if not each[2].whole]

    def _return_pages(self, small: bool) -> None:
        """Whole pages at the growing end; those between used blocks stay reserved in this model."""
        end, page = self._ends.get(small), SMALL_SEGMENT if small else LARGE_SEGMENT
        if end is None or end.used:
            return
        self._take(end)
        kept = -(-end.address // page) * page - end.address
        kept = min(kept, end.size)
        self.reserved_bytes -= end.size - kept
        end.size = kept
        if kept:
            self._put(end)
        elif end.before is None:
            del self._ends[small]
        else:
            end.before.behind = None
            self._ends[small] = end.before


def reserved_bytes(events: Iterable[Event], *, expandable: bool = False) -> float:
    """Peak bytes that the allocator reserves on a device without limit.

    events: ("name", bytes) allocates a tensor, ("name", 0) frees it, in order
    Raises GraphsimError if a name is allocated twice or freed without having been allocated.
    """
    allocator = CachingAllocator(expandable=expandable)
    allocator.replay(events)
    return float(allocator.peak_reserved_bytes)


def fits(events: Iterable[Event], capacity_bytes: float, *, expandable: bool = False) -> bool:
    """Whether a program runs within `capacity_bytes` of the device; unused segments are returned when needed."""
    allocator = CachingAllocator(capacity_bytes=capacity_bytes, expandable=expandable)
    try:
        allocator.replay(events)
    except OutOfMemory:
        return False
    return True
