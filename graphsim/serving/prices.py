"""Step times of a deployment, as tables over a compiled step that are filled on demand.

A compiled step takes a quarter of a millisecond, for one step or hundreds in one call; a table look-up a few
microseconds. Times are defined as linear between nodes, so that a loop can add up runs of steps exactly:

    decode   a table for each (size that the batch runs as, adapters), over the mean context; nodes that a line between
             others meets within LEFT_OUT are left out, so that runs of steps are longer
    mixed    a table for each (batch, adapters, context) at fixed nodes, over all tokens of the step, on both sides of
             whole tiles, and over the prompts' past; linear in between

What this adds to the errors of the compiled step itself is measured in `tests/serving/test_prices.py`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from graphsim.compile.step import CompiledStep
from graphsim.serving.price_nodes import (
    ADAPTERS,
    BATCHES,
    COARSE_CONTEXTS,
    CONTEXTS,
    FEW,
    PASTS,
    PROMPTS,
    around,
    place_of,
    tokens_in,
)

Array = np.ndarray[Any, np.dtype[np.float64]]
Row = Sequence[float]
Line = tuple[Row, Row, Row]
"""Contexts that are nodes of a table, seconds at these, and slopes between them."""
Table = list[list[Row]]
"""Seconds over two contexts, two pasts of prompts, and the tokens of a step."""
Place = tuple[int, int, int, int, int, int]
"""Key of a table of mixed steps: span of tokens, batch, adapters, context, past, and kind of prompts: a number, USUAL
or CUT.

At nodes: the batch's, whether adapters are more than FEW, and the context's.
"""
USUAL, CUT = 0, -1
"""Kinds of prompts: as many of the mean length as fit the tokens; a single one whose end is not in the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Parameters of the tables in addition to the compiled step.

    captured: sizes of generating batches that are graphs
    pads: whether a batch runs as the next of them
    mean_prompt: tokens of a prompt on average: if a step has more, they count as several prompts
    adapters: different ones of a step at most
    mean_rank: mean rank over tokens with an adapter; 0 for the LoraConfig's rank
    adapter_share: share of tokens with an adapter
    step_s: extra time per step
    sequence_s: of each sequence that gets a token
    """

    captured: tuple[int, ...] = ()
    pads: bool = True
    mean_prompt: float = 512.0
    adapters: int = 0
    mean_rank: float = 0.0
    adapter_share: float = 1.0
    step_s: float = 0.0
    sequence_s: float = 0.0


class StepPrices:
    """Seconds of steps of one deployment: a `StepPrice`.

    load_s: seconds to load an adapter into a slot, by its number and whether it comes from disk
    """

    def __init__(self, step: CompiledStep, sizes: Sizes, load_s: Callable[[int, bool], float]) -> None:
        self._step, self._sizes, self._load_s = step, sizes, load_s
        self._decode: dict[tuple[int, int], Line] = {}
        self._adapters = ADAPTERS[: bisect_left(ADAPTERS, sizes.adapters) + 1]
        self._nodes: dict[Place, Array] = {}
        self._mixed: dict[Place, Table] = {}
        self._loads: dict[tuple[int, bool], float] = {}
        captured = sizes.captured if sizes.pads else ()
        self._padded = [captured[bisect_left(captured, n)] for n in range(captured[-1] + 1)] if captured else [0]

    def with_loads(self, load_s: Callable[[int, bool], float]) -> StepPrices:
        """The same tables with other loads."""
        other = StepPrices(self._step, self._sizes, load_s)
        other._decode, other._nodes, other._mixed = self._decode, self._nodes, self._mixed
        return other

    def padded(self, batch: int) -> int:
        """The size that a generating batch runs as: the next captured one, itself beyond the largest."""
        return self._padded[batch] if batch < len(self._padded) else batch

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        """A decode step (`StepPrice.decode`)."""
        size = self._padded[batch] if batch < len(self._padded) else batch
        sizes = self._sizes
        contexts, values, slopes = self._decode.get((size, adapters)) or self._decode_line(size, adapters)
        mean, last = context / size, len(slopes) - 1
        at = bisect_right(contexts, mean, 0, last + 1) - 1
        slope = slopes[at]
        seconds = values[at] + slope * (mean - contexts[at]) + sizes.step_s + sizes.sequence_s * batch
        valid = int((contexts[at + 1] * size - context) // batch) + 1 if at < last else ENDLESS
        return seconds, slope * batch / size, valid

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """A step with new tokens of prompts (`StepPrice.mixed`)."""
        span, at, share = place_of(prompt_tokens + batch)
        kind = self._kind(prompt_tokens, pairs, prompts, ending or batch)
        past = (pairs - self._least_pairs(prompt_tokens, kind)) / prompt_tokens
        row = max(min(bisect_right(PASTS, past) - 1, len(PASTS) - 2), 0)
        further = (past - PASTS[row]) / (PASTS[row + 1] - PASTS[row])
        column, along = around(COARSE_CONTEXTS, context / batch) if batch else (0, 0.0)
        place = (span, batch, adapters, column, row, kind)
        earlier, later = self._mixed.get(place) or self._table(place)
        seconds = _at(earlier, at, share, further)
        if along:
            seconds += along * (_at(later, at, share, further) - seconds)
        return seconds + self._sizes.step_s + self._sizes.sequence_s * (batch + ending)

    def load(self, adapter: int, from_disk: bool) -> float:
        """Time to load an adapter into a slot (`StepPrice.load`)."""
        key = (adapter, from_disk)
        found = self._loads.get(key)
        if found is None:
            found = self._loads[key] = self._load_s(adapter, from_disk)
        return found

    def _decode_line(self, size: int, adapters: int) -> Line:
        contexts, named = np.array(CONTEXTS), self._adapted(min(adapters, size), float(size))
        seconds = np.asarray(self._step(generating=float(size), cache_rows=size * (contexts + 1.0), **named))
        values = np.maximum.accumulate(np.broadcast_to(seconds, contexts.shape))
        if len(self._decode) >= MOST_TABLES:
            self._decode.clear()
        kept = _corners(CONTEXTS, values.tolist())
        contexts, values = contexts[kept], values[kept]
        slopes = np.diff(values) / np.diff(contexts)
        line = self._decode[size, adapters] = (_packed(contexts), _packed(values), _packed(slopes))
        return line

    def _table(self, place: Place) -> Table:
        """The table of one batch size and number of adapters, from the tables of the surrounding nodes."""
        span, batch, adapters, column, row, kind = place
        (b, along), (a, across) = around(BATCHES, batch), around(ADAPTERS, min(adapters, self._sizes.adapters))
        many, a = (True, a - FEW) if a >= FEW else (False, a)
        found = self._node((span, b, many, column, row, kind))
        at = found[a] + across * (found[a + 1] - found[a]) if across else found[a]
        if along:
            found = self._node((span, b + 1, many, column, row, kind))
            other = found[a] + across * (found[a + 1] - found[a]) if across else found[a]
            at = at + along * (other - at)
        rising = np.maximum.accumulate(at, axis=-1)
        table: Table = [[_packed(row) for row in rows] for rows in rising]
        if len(self._mixed) >= MOST_TABLES:
            self._mixed.clear()
        self._mixed[place] = table
        return table

    def _node(self, key: Place) -> Array:
        """Seconds over adapters, two contexts, two pasts and the tokens of a step, at the batch of a node; one call."""
        found = self._nodes.get(key)
        if found is None:
            span, b, many, column, row, kind = key
            counts = self._adapters[FEW:] if many else self._adapters[: FEW + 1]
            batch, contexts = float(BATCHES[b]), np.array(COARSE_CONTEXTS[column : column + 2])
            new = np.maximum(np.array(tokens_in(span), dtype=float) - batch, 1.0)
            prompts = self._prompts(new, kind)
            pairs = new * (new / prompts + 1.0) / 2.0 + np.array(PASTS[row : row + 2])[:, None] * new
            adapters = np.array(counts)[:, None, None, None]
            seconds = self._step(
                prompt_tokens=new, prompts=prompts, prompt_pairs=pairs, prompts_ending=0.0 if kind == CUT else prompts,
                generating=batch, cache_rows=batch * (contexts[:, None, None] + 1.0),
                **self._adapted(np.minimum(adapters, new + batch), new + batch),
            )  # fmt: skip
            shape = (len(counts), len(contexts), *pairs.shape)
            if len(self._nodes) >= MOST_NODES:
                self._nodes.clear()
            found = self._nodes[key] = np.broadcast_to(np.asarray(seconds, dtype=float), shape)
        return found

    def _adapted(self, adapters: Any, tokens: Any) -> dict[str, Any]:
        """The adapter arguments of a step: distinct adapters among its tokens, and their ranks."""
        sizes = self._sizes
        if not sizes.adapters:
            return {}
        found = {"distinct_adapters": np.asarray(adapters, dtype=float)[()]}
        return found | ({"rank_rows": sizes.mean_rank * sizes.adapter_share * tokens} if sizes.mean_rank else {})

    def _kind(self, tokens: int, pairs: float, prompts: int, ends: int) -> int:
        """The kind of prompts that a step is assumed to have: a number of prompts if they evidently have a past."""
        if not ends:
            return CUT
        if prompts == 1:
            return 1 if tokens > ABOUT * self._sizes.mean_prompt else USUAL
        return PROMPTS[bisect_right(PROMPTS, prompts) - 1] if pairs > tokens * (tokens + 1.0) / 2.0 else USUAL

    def _prompts(self, tokens: Array, kind: int) -> Array:
        """How many there are."""
        usual = tokens / self._sizes.mean_prompt if kind == USUAL else np.full(tokens.shape, float(abs(kind)))
        return np.maximum(np.minimum(usual, tokens), 1.0)

    def _least_pairs(self, tokens: int, kind: int) -> float:
        """Query-key pairs of this many tokens of these prompts, without a past."""
        usual = tokens / self._sizes.mean_prompt if kind == USUAL else abs(kind)
        return tokens * (tokens / max(min(usual, tokens), 1.0) + 1.0) / 2.0


ABOUT = 1.1
"""Multiple of the mean length up to which a single prompt counts as a usual one."""
ENDLESS = 1 << 60
MOST_TABLES, MOST_NODES = 4096, 1024
"""Kept of each kind, some 3 and 40 kB each; beyond that, all are dropped and rebuilt as needed."""
LEFT_OUT = 1e-4
"""Share of a decode step by which a line past a node may miss the time there."""
LEAST_SHARE = 0.5
"""Least share of the time at the usual pairs, however short the prompts are."""


def _packed(values: Array) -> Row:
    """Numbers in a quarter of a list's memory, with equally fast access."""
    return array("d", values.tobytes())


def _corners(points: Sequence[float], values: Sequence[float]) -> list[int]:
    """The nodes between which lines miss no value by more than its LEFT_OUT; both ends are among them."""
    kept, least, most = [0], -inf, inf
    for i in range(1, len(points)):
        width = points[i] - points[kept[-1]]
        slope = (values[i] - values[kept[-1]]) / width
        if not least <= slope <= most:
            kept.append(i - 1)
            width = points[i] - points[i - 1]
            slope = (values[i] - values[i - 1]) / width
            least, most = -inf, inf
        room = LEFT_OUT * values[i] / width
        least, most = max(least, slope - room), min(most, slope + room)
    return [*kept, len(points) - 1]


def _at(table: list[Row], at: int, share: float, further: float) -> float:
    """Seconds between two numbers of tokens and two pasts of the prompts."""
    less, more = table
    if share:
        low = less[at] + share * (less[at + 1] - less[at])
        high = more[at] + share * (more[at + 1] - more[at])
    else:
        low, high = less[at], more[at]
    return max(low + further * (high - low), LEAST_SHARE * low)
