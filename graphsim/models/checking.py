"""`check_checkpoint`: compares a model folder's tensors with the structure that its config describes."""

from __future__ import annotations

from pathlib import Path

from graphsim.errors import ConfigError
from graphsim.models.checkpoint.report import CheckpointReport
from graphsim.models.loading import checkpoint_report, load_model
from graphsim.units import short


def check_checkpoint(ref: str | Path) -> CheckpointReport:
    """Compare the structure of a model folder or GGUF file with its tensors, module by module.

    ref: path of the folder or file
    Where `load_model` raises, this returns the differences. Raises ConfigError if there is no safetensors file, index
    or GGUF file, or if one of them cannot be read.
    """
    if not isinstance(ref, str | Path):
        raise ConfigError(f"model = {short(ref)} is not allowed; expected the path of a model folder")
    report = checkpoint_report(load_model(ref, check=False), ref)
    if report is None:
        raise ConfigError(f"{ref}: holds no safetensors file and no index, expected a model folder with one of them")
    return report
