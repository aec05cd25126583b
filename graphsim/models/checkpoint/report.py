"""The result of comparing a checkpoint with a structure."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.units import count_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A module that differs between the two.

    text: a sentence that starts with the module's path
    """

    module: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """A model's structure compared with the tensors of its checkpoint.

    model: the model's name
    source: the folder, index or file that was read
    precision: the number formats that the config states
    parameters, bytes: number of parameters of the structure, and their size in bytes in these formats
    checkpoint_parameters, checkpoint_bytes: the same of the files; parameters are None where only tensor names are
        known
    explained_bytes: bytes of checkpoint tensors that match a module of the structure in shape and format
    differences: modules that differ
    notes: extra tensors of the checkpoint, and other remarks
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

    def __repr__(self) -> str:
        told = "explains the checkpoint" if not self.differences else f"differs in {len(self.differences)} modules"
        return f"<CheckpointReport {self.model}: the structure of {count_text(self.parameters)} parameters {told}>"

    @property
    def explained(self) -> float | None:
        """Share of the checkpoint's bytes that the structure explains; None if sizes are not known."""
        if self.explained_bytes is None or not self.checkpoint_bytes:
            return None
        return self.explained_bytes / self.checkpoint_bytes
