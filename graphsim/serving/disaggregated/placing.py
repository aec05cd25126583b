"""Which worker of a pool receives a request."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from graphsim.errors import ConfigError, choices_text
from graphsim.serving.disaggregated.decode_worker import DecodeWorker
from graphsim.serving.disaggregated.prefill_worker import PrefillWorker
from graphsim.units import short

W = TypeVar("W")

PLACINGS = ("least-loaded", "round-robin", "random")
"""Placement policies: fewest prompt tokens to compute, or fewest requests to generate for; round-robin; random."""


def check_placing(name: str) -> None:
    """Raise ConfigError for a name that is not in PLACINGS."""
    if name not in PLACINGS:
        raise ConfigError(
            f"router = {short(name)} is not known with prefill workers; {choices_text(str(name), PLACINGS)}"
        )


class Placing:
    """A router between both pools, which sees their current loads."""

    def __init__(self, name: str, prefill: Sequence[PrefillWorker], decode: Sequence[DecodeWorker]) -> None:
        """Raises ConfigError as check_placing does."""
        check_placing(name)
        self._name, self._prefill, self._decode = name, prefill, decode
        self._turns = [0, 0]
        self._draw = random.Random(0)

    def prefill(self) -> int:
        """The prefill worker of the next request."""
        return self._of(0, self._prefill, lambda worker: worker.tokens)

    def decode(self) -> int:
        """Its decode worker."""
        return self._of(1, self._decode, lambda worker: worker.requests)

    def _of(self, pool: int, workers: Sequence[W], load: Callable[[W], int]) -> int:
        if len(workers) == 1:
            return 0
        if self._name == "random":
            return self._draw.randrange(len(workers))
        turn = self._turns[pool]
        self._turns[pool] = (turn + 1) % len(workers)
        if self._name == "round-robin":
            return turn
        return min(range(len(workers)), key=lambda i: (load(workers[i]), (i - turn) % len(workers)))
