"""When each token of an answer came, told from the run's steps: a log holds no row per token."""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

TOLERANCE = 1e-9
"""Of sums of step times, in parts of the clock."""


class TokenTimes:
    """Gaps between the tokens of answers.

    A sequence gets a token at the end of every step that generates, from its first token to its last, and its client
    sees each of them as long after that as the last one. Where the engine left it out of some of these steps (it was
    preempted), they count as one pause before its last token.
    """

    def __init__(self, columns: dict[str, Floats], *, bursts: bool = False) -> None:
        """columns: runs of steps, in time; bursts: whether a step may give a sequence several tokens.

        These come at once and are one gap, as benchmark clients count chunks of the stream.
        """
        self._bursts = bursts
        generating = columns["batch"] > 0
        start, seconds, steps = (columns[name][generating] for name in ("start_s", "seconds", "steps"))
        count = np.maximum(steps, 1.0).astype(np.int64)
        ahead = np.repeat(np.cumsum(count) - count, count)
        number = np.arange(1, len(ahead) + 1) - ahead  # of each step in its run
        self._ends = np.repeat(start, count) + np.repeat(seconds / count, count) * number

    def gaps(self, first_s: float, finished_s: float, tokens: int) -> Floats:
        """The tokens - 1 gaps in seconds, or fewer where tokens come in bursts; they sum to the time from the first to
        the last."""
        further = tokens - 1
        if further < 1:
            return np.zeros(0)
        tiny = TOLERANCE * max(1.0, finished_s)
        last = int(np.searchsorted(self._ends, finished_s + tiny)) - 1
        delay_s = finished_s - float(self._ends[last]) if last >= 0 else 0.0
        first = int(np.searchsorted(self._ends, first_s - delay_s + tiny))
        if self._bursts:
            further = max(min(further, last - first + 1), 1)
        if last - first < further - 1:  # the log has fewer steps than the answer has tokens
            return np.full(further, (finished_s - first_s) / further)
        ends = self._ends[first : first + further - 1] + delay_s
        return np.diff(np.concatenate([[first_s], ends, [finished_s]]))
