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
from graphsim.units import Num

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
    _blocks: dict[int, tuple[Array, Array, Array]] = field(default_factory=dict)

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        """As `StepPrice.decode`, of one step, since the number of tokens it yields is random."""
        seconds = self.plain.decode(batch, context, adapters)[0]
        more, drafting, _ = self._added(self._padded(batch), context / batch)
        return seconds + more + drafting, 0.0, 1

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """As `StepPrice.mixed`."""
        rows = self.tokens * batch
        tokens = prompt_tokens + rows
        all_pairs = self._pairs(pairs, batch, context)
        seconds = self.plain.mixed(tokens, all_pairs, prompts, ending, batch, context, adapters)
        return seconds + self._drafting_s(prompt_tokens, pairs, prompts, ending, batch, context)

    def behind_s(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """As `DraftingPrice.behind_s`."""
        if self.times.sent != "sampled":
            return 0.0
        if not prompt_tokens:
            return self._added(self._padded(batch), context / batch)[1]
        return self._drafting_s(prompt_tokens, pairs, prompts, ending, batch, context)

    def _pairs(self, pairs: float, batch: int, context: int) -> float:
        """Query-key pairs of a step's prompts and verified rows."""
        return pairs + self.tokens * batch * ((context / batch if batch else 0.0) + (self.tokens + 1) / 2.0)

    def _drafting_s(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int
    ) -> float:
        """What all passes of the draft take in a step with prompts.

        Sequences whose prompt ends in a step that sends its tokens ahead of the further passes make these in the next.
        """
        starting = batch if self.times.sent == "read" else batch + ending
        reading_s = 0.0
        if self.draft is not None:
            tokens, all_pairs = prompt_tokens + self.tokens * batch, self._pairs(pairs, batch, context)
            reading_s = self.draft.mixed(tokens, all_pairs, prompts, ending, batch, context, 0)
        if not starting:
            return reading_s
        past = 2.0 * pairs * ending / max(prompts * prompt_tokens, 1) if starting > batch else 0.0
        return reading_s + self._added(float(starting), (context + past) / starting)[2]

    def load(self, adapter: int, from_disk: bool) -> float:
        """As `StepPrice.load`."""
        return self.plain.load(adapter, from_disk)

    def _padded(self, batch: int) -> float:
        """Sequences that a step runs as."""
        rows = batch * (self.tokens + 1)
        at = bisect_right(self.captured, rows - 1)
        return (self.captured[at] if at < len(self.captured) else rows) / (self.tokens + 1.0)

    def _added(self, sequences: float, context: float) -> tuple[float, float, float]:
        """What verifying takes more than generating one token, what drafting takes, and what of it is left once the
        draft has read the step's rows.
        """
        at = min(bisect_right(SEQUENCES, sequences) - 1, len(SEQUENCES) - 2)
        share = (sequences - SEQUENCES[at]) / (SEQUENCES[at + 1] - SEQUENCES[at])
        more, drafting, further = (
            lower + share * (upper - lower)
            for lower, upper in zip(self._node(at, context), self._node(at + 1, context), strict=True)
        )
        return more, drafting, further

    def _node(self, at: int, context: float) -> tuple[float, ...]:
        row = at % AT_ONCE
        column = min(max(bisect_right(CONTEXTS, context) - 1, 0), len(CONTEXTS) - 2)
        along = max((context - CONTEXTS[column]) / (CONTEXTS[column + 1] - CONTEXTS[column]), 0.0)

        def between(table: Array) -> float:
            low, high = table[row, column], table[row, column + 1]
            return float(low + along * (high - low))

        return tuple(map(between, self._block(at // AT_ONCE)))

    def _block(self, number: int) -> tuple[Array, Array, Array]:
        """The quantities of `_added` at some nodes over sequences and at all contexts; one evaluation of the graphs."""
        found = self._blocks.get(number)
        if found is None:
            nodes = np.array(SEQUENCES[number * AT_ONCE : (number + 1) * AT_ONCE])
            shape = (len(nodes), len(CONTEXTS))
            sequences, contexts = (grid.ravel() for grid in np.meshgrid(nodes, CONTEXTS, indexing="ij"))
            some, at_least_one = np.minimum(sequences, 1.0), np.maximum(sequences, 1.0)
            step = self.times.step(at_least_one, contexts)
            further_s = self.times.further_s(at_least_one, contexts)

            def shaped(seconds: Num) -> Array:
                return np.broadcast_to(some * seconds, sequences.shape).reshape(shape)

            found = self._blocks[number] = (
                shaped(step.verify_s - step.plain_s), shaped(step.draft_s), shaped(further_s)
            )  # fmt: skip
        return found
