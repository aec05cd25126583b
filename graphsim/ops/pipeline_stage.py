"""A stage of a pipeline, for the operations and the names of its nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStage:
    """Where an operation of a pipeline runs: the stage's number, and the number of the micro-batch that it works on."""

    number: int
    micro_batch: int

    @property
    def name(self) -> str:
        """`stage0`."""
        return f"stage{self.number}"

    @property
    def prefix(self) -> str:
        """What the names of its nodes start with: `mb0.stage0.`."""
        return f"mb{self.micro_batch}.{self.name}."

    def stream(self, stream: str) -> str:
        """The stage's own stream of that kind: `stage0.compute`."""
        return f"{self.name}.{stream}"
