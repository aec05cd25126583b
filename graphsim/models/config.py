"""What a model is: a stem, its layers one by one, a head. And how it may be cut over devices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError
from graphsim.models.layers.base import Layer, parameters_of
from graphsim.models.layers.encoder import IdleEncoder
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.per_layer_input import PerLayerStem
from graphsim.ops.precision import Precision
from graphsim.units import Num, checked_number, short

MOST_DEVICES = 10**6
"""Largest degree of parallelism that is taken for a meaningful number."""

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig


@dataclass(slots=True, kw_only=True, eq=False)
class ModelConfig:
    """A model's structure. Only `lora_config` is meant to be assigned.

    encoder: of images, in memory but not part of a step
    layers: one description per layer; equal ones are simulated once and repeated
    layer_prefix: module path of a layer, `{}` standing for its index
    max_positions: longest context the model was made for, 0 if unknown
    precision: of a quantised checkpoint, None where the user chooses
    published_parameters: the count its makers state, checked against the structure
    notes: what the reader left out or assumed
    """

    name: str
    hidden_size: int
    stem: Stem | PerLayerStem
    layers: tuple[Layer, ...]
    head: Head
    encoder: IdleEncoder | None = None
    layer_prefix: str = "model.layers.{}."
    max_positions: int = 0
    precision: Precision | None = None
    published_parameters: int = 0
    source: str = ""
    notes: tuple[str, ...] = ()
    lora_config: LoraConfig | None = None

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def vocab_size(self) -> int:
        """Entries of the token embedding."""
        return self.stem.vocab_size

    @property
    def tied_embeddings(self) -> bool:
        """Whether the output head uses the embedding's weights."""
        return self.head.tied

    @property
    def num_parameters(self) -> int:
        """Exact number of weights, tied embeddings once."""
        ends = parameters_of(lambda scope: self.stem.build(scope), self.hidden_size)
        if self.encoder is not None:
            ends += parameters_of(self.encoder.build, self.hidden_size)
        ends += parameters_of(lambda scope: self.head.build(scope, _input(scope)), self.hidden_size)
        layers = Counter(self.layers)
        return ends + sum(
            times * parameters_of(lambda scope, layer=layer: layer.build(scope, _input(scope)), self.hidden_size)  # type: ignore[misc]
            for layer, times in layers.items()
        )


def _input(scope: Any) -> str:
    from graphsim.ops import Input

    return str(scope.add("input", Input(elems=scope.tokens * scope.hidden), []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """How many devices share the work, and in which way.

    tp: tensor parallel; pp: pipeline stages; dp: replicas that share the batch
    ep: ranks that the experts are dealt out to. Up to tp, they are the tensor-parallel group's own; beyond, attention
        runs in ep / tp replicas that share the batch and exchange tokens with the experts' devices
    sp: sequence parallel along the tensor-parallel group (arXiv 2205.05198): 1 or tp
    micro_batches: the pipeline's; 0 = as many as stages, but no more than sequences
    """

    tp: Num = 1
    pp: int = 1
    ep: Num = 1
    sp: Num = 1
    dp: Num = 1
    micro_batches: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError unless every degree is a whole number of at least 1.

        pp, micro_batches and whether there is sequence parallelism shape the graph: the same for all scenarios.
        """
        import numpy as np

        for field in fields(self):
            least, one = 0 if field.name == "micro_batches" else 1, field.name in ("pp", "micro_batches")
            value = checked_number(f"parallelism.{field.name}", getattr(self, field.name), least, MOST_DEVICES, one=one)
            object.__setattr__(self, field.name, value)
        alike = np.ndim(self.sp) == 0 or np.ndim(self.tp) == 0 or np.shape(self.sp) == np.shape(self.tp)
        if not (np.all(np.equal(self.sp, 1)) or (alike and np.all(np.equal(self.sp, self.tp)))):
            raise ConfigError(
                f"parallelism.sp = {short(self.sp)} is not allowed with tp = {short(self.tp)}; "
                "expected 1, or tp in every scenario"
            )

        smaller = np.minimum(np.asarray(self.tp), np.asarray(self.ep))
        if np.any(np.maximum(np.asarray(self.tp), np.asarray(self.ep)) % smaller):
            raise ConfigError(
                f"parallelism.ep = {self.ep} is not allowed with tp = {self.tp}; one must be a multiple of the other"
            )

    @property
    def attention_replicas(self) -> Num:
        """Replicas of the attention that one set of experts serves."""
        import numpy as np

        return np.maximum(self.ep / self.tp, 1.0)

    @property
    def devices(self) -> Num:
        """Devices in all."""
        return self.tp * self.attention_replicas * self.pp * self.dp
