"""Capture of a model: from a module or a config to a ModelConfig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphsim.errors import ConfigError, GraphsimError
from graphsim.models.capture.document import document
from graphsim.models.capture.instantiate import meta_model, one_line
from graphsim.models.capture.tower_sections import what_resists
from graphsim.models.capture.towers import Recorded, idle_note, recorded_towers
from graphsim.models.capture.trace import Trace, trace
from graphsim.models.config import ModelConfig
from graphsim.models.yaml import read_model


def captured(ref: Any, inputs: Mapping[str, Any] | None, name: str) -> ModelConfig:
    """The model captured from a module or config; see `graphsim.models.capture.capture`."""
    model = meta_model(ref)
    found = trace(model, inputs)
    towers, notes = ([], []) if inputs is not None else _towers(model, found)
    try:
        return _read(found, name, towers, notes)
    except GraphsimError as error:
        if not towers:
            raise
        what = f"{error}; the weights of its towers are held, and no image or sound passes them"
        return _read(found, name, [], [*notes, what])


def _read(found: Trace, name: str, towers: Sequence[Recorded], notes: Sequence[str]) -> ModelConfig:
    """The model described by a trace and by the recorded runs of its towers.

    Raises ConfigError also for combinations of operations that no rule covers.
    """
    where = f"the model captured from {type(found.model).__name__}"
    try:
        data = document(found, name or _name(found.model), towers)
    except GraphsimError:
        raise
    except Exception as error:
        raise ConfigError(f"{where}: its operations cannot be turned into a graph: {one_line(error)}") from error
    said = [*data.get("notes", []), *(note[:LONGEST_NOTE] for note in notes)]
    return read_model(data | {"notes": said} if said else data, where, data["name"])


LONGEST_NOTE = 300


def _towers(model: Any, found: Trace) -> tuple[list[Recorded], list[str]]:
    """The towers that a model file can describe, and one note on each tower."""
    recorded, notes = recorded_towers(model)
    kept: list[Recorded] = []
    for one in recorded:
        why = what_resists(found, one)
        kept += [] if why else [one]
        notes.append(idle_note(one.tower, why) if why else one.tower.note)
    return kept, notes


def _name(model: Any) -> str:
    """Name of the checkpoint if the config states one, else of the model type, else of the class."""
    config = getattr(model, "config", None)
    told = str(getattr(config, "_name_or_path", "") or "").rstrip("/").rsplit("/", 1)[-1]
    return told or str(getattr(config, "model_type", "") or "") or type(model).__name__
