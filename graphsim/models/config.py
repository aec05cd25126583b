"""The description of a model: a stem, its layers one by one, a head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.models.layers.base import Layer, Scope, parameters_of
from graphsim.models.media import Media
from graphsim.ops import Input
from graphsim.ops.precision import Precision, load_precision
from graphsim.units import count_text

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig
    from graphsim.models.layers.answers import Answer
    from graphsim.models.layers.block_draft import Drafting
    from graphsim.models.layers.custom import BlockHead, BlockStem
    from graphsim.models.layers.encoder import Encoder
    from graphsim.models.layers.ends import Head, Stem
    from graphsim.models.layers.per_layer_input import PerLayerStem
    from graphsim.models.source import SourceEncoder


@dataclass(slots=True, kw_only=True, eq=False)
class ModelConfig:
    """A model's structure. Only `lora_config` may be assigned.

    name: the model's name
    hidden_size: width of the residual stream, in elements
    streams: number of parallel residual streams (hyper-connections), each `hidden_size` wide; 1 in most models
    stem: token and position embeddings
    layers: one description per layer, in order; equal layers are simulated once
        and repeated
    head: output head
    encoders: towers for images and sound, which a step runs if its requests have any
    source_encoder: the encoder of an encoder-decoder, which reads the input
    drafting: for a draft that predicts a block of tokens at once: what it reads of its target model
    layer_prefix: module path of a layer, with `{}` in place of its index
    max_positions: longest context in tokens that the model supports; 0 if unknown
    precision: number formats of a quantised checkpoint; None where the user chooses
    model_type: the `model_type` of a Hugging Face config.json (the outermost one in a nested config); "" without one
    published_parameters: the number of parameters that the publisher states, checked against the structure
    source: where the description comes from
    notes: what the reader left out or assumed
    lora_config: the adapter of the model, used where a function is given none
    document: the data of the model file that it was read from; None for a config.json or a checkpoint
    """

    name: str
    hidden_size: int
    streams: int = 1
    stem: Stem | PerLayerStem | BlockStem
    layers: tuple[Layer, ...]
    head: Head | Answer | BlockHead
    encoders: tuple[Encoder, ...] = ()
    source_encoder: SourceEncoder | None = None
    drafting: Drafting | None = None
    layer_prefix: str = "model.layers.{}."
    max_positions: int = 0
    precision: Precision | None = None
    model_type: str = ""
    published_parameters: int = 0
    source: str = ""
    notes: tuple[str, ...] = ()
    lora_config: LoraConfig | None = None
    document: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        shape = f"{self.num_layers} layers of {self.hidden_size}, vocabulary of {self.vocab_size:,}"
        stated = f", {self.precision.name}" if self.precision else ""
        adapter = f", {self.lora_config!r}" if self.lora_config else ""
        return f"<ModelConfig {self.name}: {count_text(self.num_parameters)} parameters, {shape}{stated}{adapter}>"

    def save(self, path: str | Path) -> Path:
        """Write the model as a model file for `load_model`, as YAML or JSON depending on the suffix of `path`.

        Raises ConfigError for another suffix, for a path that cannot be written to, and for a model that was read from
        a config.json or a checkpoint, as these are its files.
        """
        from graphsim.models.saving import save

        return save(self.document, self.name, path)

    @property
    def own_precision(self) -> Precision:
        """The number formats of a quantised checkpoint; bf16 otherwise."""
        return self.precision or load_precision("bf16")

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def most_layers(self) -> int:
        """Number of layers of the deepest stack: the language model's, its encoder's or a tower's."""
        towers = [len(section.layers) for tower in self.encoders for section in tower.sections]
        read = len(self.source_encoder.layers) if self.source_encoder else 0
        return max(len(self.layers), read, *towers)

    @property
    def vocab_size(self) -> int:
        """Entries of the token embedding."""
        return self.stem.vocab_size

    @property
    def tied_embeddings(self) -> bool:
        """Whether the output head uses the embedding's weights."""
        return self.head.tied

    def rows_seen(self, media: Media | None) -> float:
        """Rows of a request's images or sound that layers attend to in addition to its tokens."""
        return 0.0 if media is None else sum((tower.seen_rows(media) for tower in self.encoders), start=0.0)

    @property
    def generates(self) -> bool:
        """Whether there is an output head that predicts tokens."""
        return self.head.generates

    @property
    def num_parameters(self) -> int:
        """Exact number of weights; tied embeddings count once."""
        ends = parameters_of(lambda scope: self.stem.build(scope), self.hidden_size)
        ends += sum(parameters_of(encoder.build, self.hidden_size) for encoder in self.encoders)
        ends += _parameters([self.head], self.hidden_size)
        if self.drafting is not None:
            ends += parameters_of(self.drafting.read, self.hidden_size)
        if self.source_encoder is not None:
            parts = (self.source_encoder.stem, *self.source_encoder.layers, self.source_encoder.tail)
            ends += _parameters([part for part in parts if part is not None], self.source_encoder.hidden_size)
        return ends + _parameters(self.layers, self.hidden_size, self.streams)


def _parameters(layers: Iterable[Layer], hidden: int, streams: int = 1) -> int:
    """Parameters of all layers; equal layers are counted once and multiplied."""

    def built(layer: Layer, scope: Scope) -> str:
        return layer.build(scope, scope.add("input", Input(elems=scope.tokens * hidden * streams), []))

    return sum(times * parameters_of(partial(built, layer), hidden) for layer, times in Counter(layers).items())
