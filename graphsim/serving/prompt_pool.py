"""Prompts on servers of their own: who comes first is served first, by whichever of them is free first."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class PromptPool:
    """Servers that run one prompt at a time each. prompt_s: what a prompt of so many tokens takes one of them."""

    def __init__(self, workers: int, prompt_s: Callable[[float], float]) -> None:
        self._free, self._prompt_s = [0.0] * workers, prompt_s

    def done_s(self, arrived_s: float, tokens: float) -> float:
        """When a prompt that arrives then has its first token."""
        done = max(self._free[0], arrived_s) + self._prompt_s(tokens)
        heapq.heapreplace(self._free, done)
        return done
