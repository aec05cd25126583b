"""Writing a model as a model file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from graphsim.errors import ConfigError
from graphsim.files.present import path_of, shown
from graphsim.files.written import write_text

SUFFIXES = (".yaml", ".yml", ".json")
WIDTH = 120


def save(document: Mapping[str, Any] | None, name: str, path: str | Path) -> Path:
    """Write the data of a model file; see `ModelConfig.save`."""
    if document is None:
        raise ConfigError(
            f"model '{name}' was not read from a model file; its config.json or checkpoint already is its file"
        )
    target = path_of(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"path = '{shown(target)}' does not end in one of {', '.join(SUFFIXES)}")
    return write_text(target, _text(document, suffix))


def _text(document: Mapping[str, Any], suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(document, indent=1) + "\n"
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(document, Dumper=dumper, sort_keys=False, width=WIDTH, default_flow_style=None)
    return text
