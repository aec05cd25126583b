"""Graphs captured from PyTorch models (extra `torch`) by running their own Python code."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from graphsim.errors import needs
from graphsim.models.config import ModelConfig


def capture(model: Any, *, inputs: Mapping[str, Any] | None = None, name: str = "") -> ModelConfig:
    """A model whose graph is captured from PyTorch.

    model: an `nn.Module`, a transformers config, a config.json as a path or a mapping, a model folder, or a catalog
        name of a model that was published with a config.json
    inputs: example tensors [batch, length, …], keyed by the argument names of `forward`, for a module whose input is
        not token ids; only shapes and dtypes are used
    name: name of the model; the class's name by default
    Raises ConfigError where torch or transformers is missing or the model's code cannot be captured, saying why.
    """
    if find_spec("torch") is None:
        raise needs("torch", "torch")
    from graphsim.models.capture.capturing import captured

    return captured(model, inputs, name)
