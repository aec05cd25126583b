"""The caching allocator's model: PyTorch's sizes and rules, held against a plain search over all stretches."""

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import GraphsimError
from graphsim.training.caching_allocator import (
    MIB,
    CachingAllocator,
    Event,
    OutOfMemory,
    fits,
    reserved_bytes,
)


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_a_tensor_reserves_what_pytorch_asks_of_the_device(size: int, reserved: int) -> None:
    assert reserved_bytes([("a", size)]) == reserved


def test_small_tensors_share_a_segment_and_are_multiples_of_512_bytes() -> None:
    allocator = CachingAllocator()
    for i in range(4096):
        allocator.allocate(str(i), 3)
    assert allocator.allocated_bytes == allocator.reserved_bytes == 2 * MIB
    allocator.allocate("one more", 3)
    assert allocator.reserved_bytes == 4 * MIB


def test_up_to_a_mebibyte_of_a_large_block_is_handed_out_with_it() -> None:
    allocator = CachingAllocator()
    allocator.allocate("a", 11 * MIB + 1)
    assert allocator.allocated_bytes == 12 * MIB
    allocator.free("a")
    allocator.allocate("b", 11 * MIB - 512)
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (11 * MIB - 512, 12 * MIB)


def test_what_is_larger_than_every_free_block_fragments_and_expandable_segments_do_not() -> None:
    events: list[Event] = []
    for i in range(1, 9):
        events += [(f"{i}", i * 30 * MIB), (f"{i}", 0)]
    assert reserved_bytes(events) == sum(range(1, 9)) * 30 * MIB
    assert reserved_bytes(events, expandable=True) == 240 * MIB


def test_unused_segments_go_back_before_memory_is_out() -> None:
    events: list[Event] = [("a", 30 * MIB), ("a", 0), ("b", 40 * MIB)]
    assert reserved_bytes(events) == 70 * MIB
    assert fits(events, 40 * MIB)
    assert not fits(events, 39 * MIB)
    with pytest.raises(OutOfMemory, match="does not fit"):
        CachingAllocator(capacity_bytes=39 * MIB).replay(events)


def test_a_segment_that_is_partly_used_does_not_go_back() -> None:
    events: list[Event] = [("a", 12 * MIB), ("a", 0), ("b", 4 * MIB), ("c", 12 * MIB)]
    assert fits(events, 24 * MIB)
    assert not fits(events, 22 * MIB)


def test_names_are_allocated_once_and_freed_once() -> None:
    with pytest.raises(GraphsimError, match="'a' is allocated already"):
        reserved_bytes([("a", 1), ("a", 2)])
    with pytest.raises(GraphsimError, match="'b' is not allocated"):
        reserved_bytes([("b", 0)])


class Plain:
    """The same rules by looking at every stretch: segments are lists of [size, name or None]."""

    def __init__(self) -> None:
        self.segments: list[tuple[bool, list[list]]] = []

    def allocate(self, name: str, size: int) -> None:
        wanted = max(512, 512 * ceil(size / 512))
        small = wanted <= MIB
        found = [
            (stretch[0], i, j)
            for i, (kind, stretches) in enumerate(self.segments)
            for j, stretch in enumerate(stretches)
            if kind == small and stretch[1] is None and stretch[0] >= wanted
        ]
        if not found:
            whole = 2 * MIB if small else 20 * MIB if wanted < 10 * MIB else 2 * MIB * ceil(wanted / (2 * MIB))
            self.segments.append((small, [[whole, None]]))
            found = [(whole, len(self.segments) - 1, 0)]
        _, i, j = min(found)
        stretches = self.segments[i][1]
        left = stretches[j][0] - wanted
        if left >= 512 if small else left > MIB:
            stretches.insert(j + 1, [left, None])
            stretches[j][0] = wanted
        stretches[j][1] = name

    def free(self, name: str) -> None:
        for _, stretches in self.segments:
            for stretch in stretches:
                if stretch[1] == name:
                    stretch[1] = None
            j = 0
            while j + 1 < len(stretches):
                if stretches[j][1] is None and stretches[j + 1][1] is None:
                    stretches[j][0] += stretches.pop(j + 1)[0]
                else:
                    j += 1

    @property
    def reserved(self) -> int:
        return sum(size for _, stretches in self.segments for size, _ in stretches)

    @property
    def allocated(self) -> int:
        return sum(size for _, stretches in self.segments for size, name in stretches if name is not None)


SIZES = st.one_of(st.integers(1, 4096), st.integers(1, 3 * MIB), st.integers(1, 60 * MIB))
PROGRAMS = st.lists(st.tuples(SIZES, st.integers(0, 30)), min_size=1, max_size=60)
"""Each step allocates so many bytes and frees the tensor at a place of those that live (or none, if there is none)."""


@settings(max_examples=60, deadline=None)
@given(PROGRAMS)
def test_the_search_is_the_plain_one(program: list[tuple[int, int]]) -> None:
    allocator, plain, alive = CachingAllocator(), Plain(), []
    for i, (size, place) in enumerate(program):
        name = str(i)
        allocator.allocate(name, size)
        plain.allocate(name, size)
        alive.append(name)
        if place < len(alive):
            gone = alive.pop(place)
            allocator.free(gone)
            plain.free(gone)
        assert (allocator.reserved_bytes, allocator.allocated_bytes) == (plain.reserved, plain.allocated)


@settings(max_examples=30, deadline=None)
@given(PROGRAMS, st.booleans())
def test_reserved_is_never_below_allocated_and_all_of_it_is_free_at_the_end(
    program: list[tuple[int, int]], expandable: bool
) -> None:
    allocator, alive = CachingAllocator(expandable=expandable), []
    for i, (size, place) in enumerate(program):
        allocator.allocate(str(i), size)
        alive.append(str(i))
        if place < len(alive):
            allocator.free(alive.pop(place))
        assert 0 < allocator.allocated_bytes <= allocator.reserved_bytes or not alive
    for name in alive:
        allocator.free(name)
    assert allocator.allocated_bytes == 0
    before = allocator.reserved_bytes
    allocator.replay((f"again {size} {place}", size) for size, place in sorted(set(program))[:1])
    assert allocator.reserved_bytes == before
