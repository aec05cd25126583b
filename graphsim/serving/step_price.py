"""What a loop asks of the cost of steps."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class StepPrice(Protocol):
    """Seconds of a server's steps, its engine's own time included; of one deployment and strategy."""

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        """A step in which each of `batch` sequences gets a token; all together they have `context` tokens in the cache.

        adapters: different ones among them. Returns the step's seconds, by how much the next step alike is longer (as
        each sequence has a token more), and for how many steps from this one on that holds.
        """

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """A step with new tokens of prompts and `batch` sequences that generate.

        pairs: causal query-key pairs of the new tokens, past + (new + 1) / 2 for each of them, summed
        ending: prompts
        whose last token is among them
        """

    def load(self, adapter: int, from_disk: bool) -> float:
        """An adapter's way into a slot, from the host's memory or from disk."""


@runtime_checkable
class DraftingPrice(Protocol):
    """What it asks of one whose steps draft tokens too."""

    def behind_s(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """Seconds at the end of a step, and part of it, in which its tokens are already on their way to the client.

        The arguments are those of `StepPrice.mixed`; without prompts, of `StepPrice.decode`.
        """
