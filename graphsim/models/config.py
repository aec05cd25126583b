"""What a model is: a stem, its layers one by one, a head."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphsim.models.layers.answers import Answer
from graphsim.models.layers.base import Layer, parameters_of
from graphsim.models.layers.encoder import IdleEncoder
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.per_layer_input import PerLayerStem
from graphsim.ops.precision import Precision

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
    head: Head | Answer
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
    def generates(self) -> bool:
        """Whether there is an output head that chooses tokens."""
        return isinstance(self.head, Head)

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
