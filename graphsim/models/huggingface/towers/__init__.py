"""The towers of multimodal models: one short file per kind, discovered by import.

A family is listed under the `model_type` of the whole model in the `WHOLES` of its file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from graphsim.models.huggingface.towers.whole import Whole


def _wholes() -> dict[str, Whole]:
    files = [import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    return {kind: whole for file in files for kind, whole in getattr(file, "WHOLES", {}).items()}


WHOLES = _wholes()
"""Readers of towers by multimodal `model_type`."""
