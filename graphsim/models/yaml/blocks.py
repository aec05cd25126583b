"""Blocks that a model file defines node by node: for layers, and in place of the embedding and the output head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graphsim.errors import choices_text
from graphsim.files.reading import Fields
from graphsim.models.layers.base import Layer
from graphsim.models.phase import Phase
from graphsim.models.yaml.overrides import Overrides
from graphsim.models.yaml.places import DECODE, HEAD, LAYER, PROMPT, STEM, Place, Sizes

if TYPE_CHECKING:
    from graphsim.models.layers import custom


@dataclass(slots=True, kw_only=True)
class Blocks:
    """The blocks of a model file; it keeps track of those that are used.

    hidden: width of the residual stream
    streams: number of residual streams
    source: width of an encoder's rows that the blocks also read; 0 without an encoder
    steps: steps for which blocks are built as a check when they are read
    idle: whether a block may consist of unused weights only
    """

    model: Fields
    hidden: int
    streams: int
    fields: Fields
    source: int = 0
    steps: tuple[Phase, ...] = (PROMPT, DECODE)
    idle: bool = False
    used: set[str] = field(default_factory=set)

    def layer(self, name: str, layer: Overrides) -> custom.Program | None:
        """The block of this name with the layer's numbers substituted; None after noting a problem."""
        return self._read("block", name, layer, replace(LAYER, idle=self.idle))

    def stem(self, name: str) -> custom.Program | None:
        """The block in place of the embedding; None after noting a problem."""
        return self._read("stem", name, Overrides(self.model), STEM)

    def head(self, name: str) -> custom.Program | None:
        """The block in place of final norm and output head; None after noting a problem."""
        return self._read("head", name, Overrides(self.model), HEAD)

    def part(self, fields: Fields, key: str, place: Place, sizes: Sizes) -> custom.Program | None:
        """The block of an encoder that a key names; None after noting a problem.

        fields: the fields that have the key
        key: the key
        place: the block's role
        sizes: sizes around the block
        """
        return self._read(key, fields.text(key), Overrides(fields), place, sizes)

    def are_all(self, layers: Iterable[Layer]) -> bool:
        """Whether all of the layers are blocks."""
        if not self.used:
            return False
        from graphsim.models.layers.custom import Program

        return all(isinstance(layer, Program) for layer in layers)

    def finish(self) -> None:
        """Note a problem for each unused block."""
        for name in self.fields.data:
            self.fields.raw(name)
            if name not in self.used:
                self.fields.problems.append(f"blocks.{name} is used by no layer; name it in one or drop it")

    def _read(
        self, key: str, name: str, layer: Overrides, place: Place, sizes: Sizes | None = None
    ) -> custom.Program | None:
        if name not in self.fields.data:
            layer.problem(key, f"is not known; {choices_text(name, self.fields.keys())}")
            return None
        self.used.add(name)
        from graphsim.models.yaml.programs import read_program

        return read_program(
            self.fields, name, self.model, layer, place, self.hidden, self.source, lambda: sizes or self._sizes()
        )

    def _sizes(self) -> Sizes:
        vocabulary = self.model.integer("vocab_size")
        return Sizes(
            hidden=self.hidden, streams=self.streams, vocabulary=vocabulary, source=self.source, steps=self.steps
        )
