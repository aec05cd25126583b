"""Nodes of the look-up tables of step times."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache

MOST_CONTEXT = 2**21
FEW = 8
"""Largest number of adapters up to which every number is a node."""


def _octaves(first: int, last: int, parts: int) -> list[int]:
    """Numbers from first to last, `parts` per doubling."""
    found, low = [first], first
    while low < last:
        found += [low + low * part // parts for part in range(1, parts + 1)]
        low *= 2
    return found


CONTEXTS: Sequence[float] = (0.0, 8.0, 16.0, 24.0, 32.0, 48.0, *map(float, _octaves(64, MOST_CONTEXT, 8)))
"""Mean tokens in the cache of generating sequences."""
COARSE_CONTEXTS: Sequence[float] = (0.0, 32.0, *map(float, _octaves(64, MOST_CONTEXT, 2)))
"""The same in steps with prompts."""
PASTS: Sequence[float] = (0.0, *map(float, _octaves(512, MOST_CONTEXT, 1)))
"""Tokens before those of a prompt's piece, on average."""
BATCHES: Sequence[int] = (0, 1, 2, 4, 8, 16, 24, *range(32, 256, 16), *_octaves(256, 2**20, 8))
ADAPTERS: Sequence[int] = (*range(FEW), *_octaves(FEW, 2**20, 2))

PROMPTS: Sequence[int] = (1, 2, 3, *_octaves(4, 2**12, 2))
"""Prompts of a step, where they have a past."""

_SPAN_ENDS = tuple(512 * 4**i for i in range(12))
_LEAST = (1, 2, 3, 4, 6, 8, 12)


def span_of(tokens: int) -> int:
    """Which span of tokens of a step has a table of its own."""
    return bisect_left(_SPAN_ENDS, tokens)


@lru_cache(maxsize=2**14)
def place_of(tokens: int) -> tuple[int, int, float]:
    """The span of a step's tokens, the node at or below them, and the share of the way to the next one."""
    span = span_of(tokens)
    points = tokens_in(span)
    at = max(bisect_right(points, tokens) - 1, 0)
    return span, at, (tokens - points[at]) / (points[at + 1] - points[at]) if at < len(points) - 1 else 0.0


@lru_cache(maxsize=len(_SPAN_ENDS))
def tokens_in(span: int) -> list[int]:
    """Nodes over all tokens of a step: both sides of whole tiles, finer where steps are small."""
    first, last = (_SPAN_ENDS[span - 1] if span else 0), _SPAN_ENDS[span]
    tile = 16 if not span else 32 * 2**span
    found = {first + 1, last}.union(*({end, end + 1} for end in range(first + tile, last, tile)))
    return sorted(found.union(_LEAST) if not span else found)


def around(points: Sequence[float], value: float) -> tuple[int, float]:
    """The node at or below a value, and the share of the way to the next one."""
    at = min(bisect_right(points, value) - 1, len(points) - 2)
    return at, (value - points[at]) / (points[at + 1] - points[at])
