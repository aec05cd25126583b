"""A slot of a pipeline schedule: one pass of one micro-batch through one chunk of a stage."""

from __future__ import annotations

from dataclasses import dataclass

FORWARD, INPUT, WEIGHT, BOTH = "F", "B", "W", "BW"
"""Forward; backward to the inputs; backward to the weights; both of these as one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """kind: `F`, `B`, `W`, or `BW` for a backward that is not split
    chunk: which of the stage's parts of the model
    beside: a backward slot that runs together with this forward one (DualPipe)
    """

    kind: str
    micro_batch: int
    chunk: int = 0
    beside: Slot | None = None

    @property
    def all(self) -> tuple[Slot, ...]:
        """The slot, and the one that runs concurrently with it."""
        return (self,) if self.beside is None else (self, self.beside)
