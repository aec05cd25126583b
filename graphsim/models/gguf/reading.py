"""Reads a GGUF file as a model: its config by the family's reader, its precision from its tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from graphsim.files.gguf import GgufFile, read_gguf
from graphsim.files.tensors import StoredTensors
from graphsim.models.checkpoint.expected import places_of
from graphsim.models.config import ModelConfig
from graphsim.models.gguf.architectures import config_of
from graphsim.models.gguf.formats import precision_of
from graphsim.models.gguf.names import renamed
from graphsim.models.huggingface import from_config
from graphsim.ops.precision import load_precision


def read_model(path: Path) -> tuple[ModelConfig, StoredTensors]:
    """The model, and its tensors under the paths of its modules.

    Raises ConfigError naming the file and the problem: an invalid header, an unknown architecture, or metadata that the
    family's reader rejects.
    """
    file: GgufFile = read_gguf(path)
    model = from_config(config_of(file, str(path)), str(path), ("all",))
    model = replace(model, notes=tuple(note for note in model.notes if not note.startswith("not read: ")))
    places = places_of(model, load_precision("bf16"))
    stored = replace(file.stored, tensors=renamed(file.stored.tensors, places))
    return replace(model, precision=precision_of(model, stored.tensors, places)), stored
