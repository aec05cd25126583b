"""What steps cost whose tokens are drafted and verified: a `StepPrice` over the one of the model alone.

A verified step takes what a decode step takes, and more by what the k + 1 rows of each sequence add to it, and
by all passes of the draft. These are priced over nodes of sequences and contexts, and linear between them. In steps
with prompts, verified rows run through the kernels of prompts as further new tokens, as in vLLM's mixed batches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphsim.serving.step_price import StepPrice
from graphsim.speculation.step_times import StepTimes

Array = np.ndarray[Any, np.dtype[np.float64]]

SEQUENCES: Sequence[float] = (
    0.0, *map(float, range(1, 17)), *map(float, range(20, 64, 4)), *map(float, range(64, 256, 16)),
    *map(float, range(256, 1024, 64)), *map(float, range(1024, 8193, 512)),
)  # fmt: skip
"""Nodes over the sequences of a step."""
CONTEXTS: Sequence[float] = (1.0, 128.0, 512.0, 1024.0, *(1024.0 * 2**i for i in range(1, 11)))
"""Nodes over their mean context."""
AT_ONCE = 16
"""Nodes over sequences that are priced in one go."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SpeculativePrices:
    """Seconds of steps that verify drafted tokens.

    plain: of the model without speculation
    draft: of the draft's steps with prompts, None where it has none
    times: of drafting and verifying
    tokens: drafted for each sequence
    captured: tokens of the steps that are captured graphs, of which a step runs as the next one; () for none
    """

    plain: StepPrice
    times: StepTimes
    tokens: int
    draft: StepPrice | None = None
    captured: tuple[int, ...] = ()
    _blocks: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        """As `StepPrice.decode`, of one step, since the number of tokens it yields is random."""
        seconds = self.plain.decode(batch, context, adapters)[0]
        more, drafting = self._added(self._padded(batch), context / batch)
        return seconds + more + drafting, 0.0, 1

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """As `StepPrice.mixed`."""
        rows = self.tokens * batch
        tokens = prompt_tokens + rows
        all_pairs = pairs + rows * ((context / batch if batch else 0.0) + (self.tokens + 1) / 2.0)
        seconds = self.plain.mixed(tokens, all_pairs, prompts, ending, batch, context, adapters)
        starting = batch + ending
        if not starting:
            return seconds + (self.draft.mixed(tokens, all_pairs, prompts, ending, 0, 0, 0) if self.draft else 0.0)
        mean = (context + 2.0 * pairs * ending / max(prompts * prompt_tokens, 1)) / starting
        drafting = self._added(float(starting), mean)[1]
        if self.draft is None:
            return seconds + drafting
        first = self.draft.mixed(tokens, all_pairs, prompts, ending, batch, context, 0)
        further = drafting * (self.tokens - 1.0) / self.tokens if self.times.draft.at_once is False else 0.0
        return seconds + first + further

    def load(self, adapter: int, from_disk: bool) -> float:
        """As `StepPrice.load`."""
        return self.plain.load(adapter, from_disk)

    def _padded(self, batch: int) -> float:
        """Sequences that a step runs as."""
        rows = batch * (self.tokens + 1)
        at = bisect_right(self.captured, rows - 1)
        return (self.captured[at] if at < len(self.captured) else rows) / (self.tokens + 1.0)

    def _added(self, sequences: float, context: float) -> tuple[float, float]:
        """What verifying takes more than generating one token, and what drafting takes."""
        at = min(bisect_right(SEQUENCES, sequences) - 1, len(SEQUENCES) - 2)
        share = (sequences - SEQUENCES[at]) / (SEQUENCES[at + 1] - SEQUENCES[at])
        lower, upper = self._node(at, context), self._node(at + 1, context)
        return lower[0] + share * (upper[0] - lower[0]), lower[1] + share * (upper[1] - lower[1])

    def _node(self, at: int, context: float) -> tuple[float, float]:
        more, drafting = self._block(at // AT_ONCE)
        row = at % AT_ONCE
        column = min(max(bisect_right(CONTEXTS, context) - 1, 0), len(CONTEXTS) - 2)
        along = max((context - CONTEXTS[column]) / (CONTEXTS[column + 1] - CONTEXTS[column]), 0.0)

        def between(table: Array) -> float:
            low, high = table[row, column], table[row, column + 1]
            return float(low + along * (high - low))

        return between(more), between(drafting)

    def _block(self, number: int) -> tuple[Array, Array]:
        """Both quantities at some nodes over sequences and at all contexts; one evaluation of the graphs."""
        found = self._blocks.get(number)
        if found is None:
            nodes = np.array(SEQUENCES[number * AT_ONCE : (number + 1) * AT_ONCE])
            shape = (len(nodes), len(CONTEXTS))
            sequences, contexts = (grid.ravel() for grid in np.meshgrid(nodes, CONTEXTS, indexing="ij"))
            step = self.times.step(np.maximum(sequences, 1.0), contexts)
            some = np.minimum(sequences, 1.0)
            more, drafting = some * (step.verify_s - step.plain_s), some * step.draft_s
            found = (
                np.broadcast_to(more, sequences.shape).reshape(shape),
                np.broadcast_to(drafting, sequences.shape).reshape(shape),
            )
            self._blocks[number] = found
        return found
