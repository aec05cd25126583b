"""What comparing a checkpoint with a structure finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One module that is not the same in both. text: a sentence that starts with the module's path."""

    module: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """A model's structure beside the tensors of its checkpoint.

    source: the folder, index or file that was read
    parameters, bytes: of the structure, in the formats that its config says
    checkpoint_parameters, checkpoint_bytes: of the files; parameters are None where only names are known
    explained_bytes: of the checkpoint's, those of modules of the structure, of the same shape and format
    differences: modules that are not the same in both
    notes: what the checkpoint holds beside the structure, and what else is worth knowing
    """

    model: str
    source: str
    precision: str
    parameters: int
    bytes: float
    checkpoint_parameters: int | None
    checkpoint_bytes: int
    explained_bytes: int | None
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def explained(self) -> float | None:
        """Share of the checkpoint's bytes that the structure explains; None where sizes are not known."""
        if self.explained_bytes is None or not self.checkpoint_bytes:
            return None
        return self.explained_bytes / self.checkpoint_bytes
