"""A LoraConfig as a YAML file with its fields by name, including ranks per module and per layer.

rank: 16
target_modules: [q_proj, v_proj, down_proj]
rank_pattern: {down_proj: 8, '.*layers\\.(0|1)\\..*': 64}   # the first match counts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.present import expanded
from graphsim.files.reading import load_mapping
from graphsim.units import short


def read_file(path: str | Path, known: Iterable[str]) -> dict[str, Any]:
    """The fields that a file gives. Raises ConfigError naming the file, and a key that is not known."""
    if not isinstance(path, str | Path):
        raise ConfigError(f"adapter = {short(path)} is not allowed; expected the path of a YAML file")
    data = load_mapping(expanded(path))
    for key in data:
        if key not in known:
            raise ConfigError(f"{path}: {short(key)} is not a known key; {choices_text(str(key), known)}")
    return {key: _tuple(value) for key, value in data.items()}


def _tuple(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return tuple(value) if isinstance(value, list) else value
