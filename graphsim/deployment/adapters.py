"""Matching an adapter to a model: default targets, replicated layers, tensor shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.graph import walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.default_targets import CONV1D, with_defaults
from graphsim.lora.matching import Matching
from graphsim.lora.targets import Targets, modules_of
from graphsim.lora.tensors import check_tensors
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.layers.replicated import Replicated
from graphsim.models.phase import prefill
from graphsim.ops import ExpertGemm, Gemm
from graphsim.ops.precision import load_precision
from graphsim.units import short


def require_adapter(lora: object) -> None:
    """Raise ConfigError for anything but a LoraConfig."""
    if not isinstance(lora, LoraConfig):
        raise ConfigError(f"lora = {short(lora)} is not a LoraConfig")


def met(model: ModelConfig, lora: LoraConfig, parallelism: Parallelism | None) -> tuple[ModelConfig, LoraConfig]:
    """The model and the adapter matched to each other; both are unchanged if nothing has to be filled in.

    parallelism: None for one device
    Raises ConfigError for targets that PEFT has no default for, layers that the model does not have or that a pipeline
    would keep apart, modules that a method does not go on, and for tensors of the adapter's file that do not fit the
    model.
    """
    _refuse_pipeline(lora, parallelism)
    if lora.layer_replication:
        model, lora = _replicated(model, lora), replace(lora, layer_replication=())
    if lora.matching is not Matching.PEFT and lora.target_modules is not None and lora.tensors is None:
        return model, lora
    lora = with_defaults(lora, model.model_type, has_stacks=lora.target_modules is None and _has_stacks(model))
    if not lora.kind.conv1d and model.model_type in CONV1D:
        _refuse_conv1d(model, lora)
    if lora.tensors is not None:
        check_tensors(_graph(model), replace(lora, strategy="dynamic"), lora.tensors)
        lora = replace(lora, tensors=None)
    return model, lora


def _refuse_pipeline(lora: LoraConfig, parallelism: Parallelism | None) -> None:
    """Raise ConfigError if layers would share weights with another stage."""
    if lora.layer_replication and parallelism is not None and parallelism.pp > 1:
        raise ConfigError(
            f"parallelism.pp = {parallelism.pp} is not allowed with lora.layer_replication, whose layers share "
            "weights; allowed: 1"
        )


def _graph(model: ModelConfig) -> Any:
    return build(model, prefill(1.0, 1.0).with_towers, load_precision("bf16"))


def _has_stacks(model: ModelConfig) -> bool:
    return any(isinstance(op, ExpertGemm) and op.fuses for _, op, _ in walk(_graph(model)))


def _refuse_conv1d(model: ModelConfig, lora: LoraConfig) -> None:
    """Raise ConfigError if a method would be applied to GPT-2's transposed linears, which it does not support."""
    targets = Targets(lora)
    for op, path in modules_of(_graph(model)):
        if isinstance(op, Gemm) and not op.head and targets.key(op, path) is not None:
            raise ConfigError(
                f"lora.variant = '{lora.variant}' is not allowed on '{path}': PEFT 0.21 has no {lora.kind.peft_type} "
                f"for the Conv1D layers of model_type '{model.model_type}'"
            )


def _replicated(model: ModelConfig, lora: LoraConfig) -> ModelConfig:
    """The model with its layers from one to before another, stretch by stretch; a second use shares the weights.

    PEFT 0.21, `utils/other.py` and `tuners/lora/model.py`, replicate_layers: models with `model.layers`.
    """
    most = max(end for _, end in lora.layer_replication)
    if not model.layer_prefix.endswith("model.layers.{}."):
        raise ConfigError(
            f"lora.layer_replication = {list(lora.layer_replication)} is not allowed for layers at "
            f"'{model.layer_prefix.rstrip('.')}'; PEFT 0.21 replicates 'model.layers.{{}}'"
        )
    if most > model.num_layers:
        raise ConfigError(
            f"lora.layer_replication = {list(lora.layer_replication)} is not allowed; the model has layers 0 to "
            f"{model.num_layers - 1}"
        )
    return replace(model, layers=tuple(_layers(model, lora)))


def _layers(model: ModelConfig, lora: LoraConfig) -> Iterator[Any]:
    used: set[int] = set()
    for start, end in lora.layer_replication:
        for i in range(start, end):
            yield Replicated(layer=model.layers[i]) if i in used else model.layers[i]
            used.add(i)
