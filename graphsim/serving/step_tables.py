"""Times of a deployment's steps as small tables, for loops that ask for thousands of them.

A compiled step takes some tenths of a millisecond for sizes that it has not met, a place in a table a few microseconds.
Sequences of one load are much alike, so that few numbers say what a step holds: the tokens of its prompts, the
sequences that generate beside them, and what these have in their caches. Between points, times are linear; of query-key
pairs, which differ where prompts are cut, they are so throughout.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.compile.step import CompiledStep

Points = list[float]
RATIO = 1.5
"""From one point of a table to the next."""
FEWEST_TOKENS = 32.0
"""Of a prompt's piece: what is left of one that was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the tables must cover.

    sequences: at once at most; prompt: tokens of one in the mean; context: that a sequence's cache holds at most
    chunk_tokens: of a step at most; mixes: whether prompts share steps with generation
    captured_tokens: of the largest step with prompts that captured graphs hold in part: the next one takes longer
    sampling_s: of each sequence that gets a token
    """

    sequences: float
    prompt: float
    context: float
    chunk_tokens: float
    mixes: bool
    captured_tokens: float = 0.0
    sampling_s: float = 0.0


class StepTables:
    """Seconds of steps of generation and of steps with prompts, as `closed_loop` asks for them."""

    def __init__(self, step: CompiledStep, sizes: Sizes) -> None:
        self._contexts = [0.8 * sizes.prompt, max(sizes.context, 0.8 * sizes.prompt + 1.0)]
        self._batches = _between(1.0, sizes.sequences)
        most = max(min(sizes.chunk_tokens, sizes.sequences * sizes.prompt), 1.2 * sizes.prompt)
        self._tokens = _with_jump(_between(min(FEWEST_TOKENS, 0.5 * sizes.prompt), most), sizes.captured_tokens)
        self._beside = [0.0, *self._batches] if sizes.mixes else [0.0]
        self._generation = _generation(step, self._batches, self._contexts)
        self._prompts = _prompts(step, self._tokens, self._beside, self._contexts, sizes, 1.0)
        self._more_pairs = _prompts(step, self._tokens, [0.0], [0.0], sizes, 1.5)
        self._mean, self._sampling_s = sizes.prompt, sizes.sampling_s

    def generation_s(self, sequences: int, context: float) -> float:
        """Seconds of a step in which so many sequences get a token each."""
        rows, row = _place(self._batches, sequences)
        columns, column = _place(self._contexts, context)
        return _in_plane(self._generation, rows, row, columns, column) + self._sampling_s * sequences

    def prompts_s(self, tokens: float, pairs: float, prompts: int, sequences: int, context: float) -> float:
        """Seconds of a step with prompts."""
        at, share = _place(self._tokens, tokens)
        lower, upper = (self._prompts_at(self._prompts[i], sequences, context) for i in (at, at + 1))
        seconds = lower + share * (upper - lower)
        usual = _pairs(tokens, self._mean)
        more = (1 - share) * self._added(at) + share * self._added(at + 1)
        return float(max(seconds + more * (pairs / usual - 1.0) / 0.5, 0.1 * seconds)) + self._sampling_s * sequences

    def _prompts_at(self, table: Any, sequences: int, context: float) -> float:
        if not sequences:
            return float(table[0][0])
        rows, row = _place(self._beside, sequences)
        columns, column = _place(self._contexts, context)
        return _in_plane(table, rows, row, columns, column)

    def _added(self, at: int) -> float:
        """What half as many pairs more add to a step of prompts alone."""
        return float(self._more_pairs[at][0][0] - self._prompts[at][0][0])


def _between(least: float, most: float) -> Points:
    """Points at about equal ratios, two at least."""
    most = max(most, 1.01 * least)
    count = max(2, 1 + int(np.ceil(np.log(most / least) / np.log(RATIO))))
    return [float(point) for point in np.geomspace(least, most, count)]


def _with_jump(points: Points, at: float) -> Points:
    """Points with two more on both sides of a jump, where it lies between them."""
    return sorted({*points, at, at + 1.0}) if points[0] < at < points[-1] else points


def _pairs(tokens: Any, mean: float) -> Any:
    """Query-key pairs of prompts of the mean length that have so many tokens together."""
    return tokens * (np.minimum(tokens, mean) + 1.0) / 2.0


def _generation(step: CompiledStep, batches: Points, contexts: Points) -> Any:
    batch, context = np.meshgrid(batches, contexts, indexing="ij")
    return np.asarray(step(generating=batch, cache_rows=batch * (context + 1.0)), dtype=float).tolist()


def _prompts(step: CompiledStep, tokens: Points, beside: Points, contexts: Points, sizes: Sizes, pairs: float) -> Any:
    new, batch, context = np.meshgrid(tokens, beside, contexts, indexing="ij")
    seconds = step(
        prompt_tokens=new, prompts=np.maximum(new / sizes.prompt, 1.0),
        prompt_pairs=pairs * _pairs(new, sizes.prompt), generating=batch, cache_rows=batch * (context + 1.0),
    )  # fmt: skip
    return np.broadcast_to(np.asarray(seconds, dtype=float), new.shape).tolist()


def _place(points: Points, value: float) -> tuple[int, float]:
    """The point below a value and how far the value lies towards the next one; beyond the last, it goes on straight."""
    if len(points) == 1:
        return 0, 0.0
    at = min(max(bisect_right(points, value) - 1, 0), len(points) - 2)
    return at, max(0.0, (value - points[at]) / (points[at + 1] - points[at]))


def _in_plane(table: Any, row: int, down: float, column: int, along: float) -> float:
    upper, lower = table[row], table[min(row + 1, len(table) - 1)]
    after = min(column + 1, len(upper) - 1)
    first = upper[column] + along * (upper[after] - upper[column])
    second = lower[column] + along * (lower[after] - lower[column])
    return float(first + down * (second - first))
