"""A model of the catalog modified as stated in its name: with fewer layers, or quantised."""

from __future__ import annotations

import copy
from dataclasses import replace

from graphsim.errors import ConfigError
from graphsim.files.model_names import NamedModel
from graphsim.models.config import ModelConfig
from graphsim.models.quantised import Kind, modules_of
from graphsim.ops.precision import load_precision


def altered(config: ModelConfig, named: NamedModel) -> ModelConfig:
    """The model according to its name, as a copy for the caller.

    Raises ConfigError for more layers than the model has, and for a format that its name does not determine.
    """
    config = _cut(config, named.layers) if named.layers else copy.copy(config)
    return _quantised(config, named) if named.precision else config


def _cut(config: ModelConfig, layers: int) -> ModelConfig:
    if layers > config.num_layers:
        raise ConfigError(f"{config.name} cannot be cut to {layers} layers; allowed: 1 to {config.num_layers}")
    note = f"the first {layers} of {config.num_layers} layers"
    return replace(
        config,
        name=f"{config.name}-{layers}-layers",
        layers=config.layers[:layers],
        published_parameters=0,
        document=None,
        notes=(*config.notes, note),
    )


def _quantised(config: ModelConfig, named: NamedModel) -> ModelConfig:
    """The precision that the name of a quantised checkpoint stands for."""
    mixed = config.precision is not None or any(module.kind is Kind.EXPERTS for module in modules_of(config))
    if named.dense and mixed:
        raise ConfigError(
            f"{config.name}: the name of a quantised copy does not say which of its modules are {named.precision}; "
            f"give the copy's own config.json, or write {config.name} and a precision"
        )
    note = f"precision {named.precision} is that which the checkpoint's name stands for"
    return replace(config, precision=load_precision(named.precision), document=None, notes=(*config.notes, note))
