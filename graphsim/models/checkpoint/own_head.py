"""Unties a family's tied output head if the checkpoint holds separate weights for it."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.tensors import StoredTensors
from graphsim.models.config import ModelConfig
from graphsim.models.layers.ends import TIED, Head

_NOTE = "the output head has weights of its own, which the checkpoint holds and tie_word_embeddings = false announces"


def with_own_head(model: ModelConfig, stored: StoredTensors) -> ModelConfig:
    """The model with its head tied or untied as in the checkpoint; unchanged if both agree."""
    head = model.head
    if not isinstance(head, Head) or not head.own_if_stored:
        return model
    if not any(name.startswith(f"{head.module}.") for name in stored.tensors):
        return model
    notes = (*(note for note in model.notes if not note.startswith(TIED)), _NOTE)
    return replace(model, head=replace(head, tied=False, own_if_stored=False), notes=notes)
