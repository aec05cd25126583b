"""Blocks that a model file writes out node by node: of layers, and in place of the embedding and the output head."""

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
    """The blocks of a model file, and which of them are used.

    hidden: width of the values that they work on; streams: of the residual
    source: width of an encoder's rows that they take beside their own, 0: there is none
    steps: to build them for when they are read; idle: whether they may be weights alone that no row passes
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
        """The block of that name with the layer's numbers put in; None after noting a problem."""
        return self._read("block", name, layer, replace(LAYER, idle=self.idle))

    def stem(self, name: str) -> custom.Program | None:
        """The block in place of the embedding; None after noting a problem."""
        return self._read("stem", name, Overrides(self.model), STEM)

    def head(self, name: str) -> custom.Program | None:
        """The block in place of final norm and output head; None after noting a problem."""
        return self._read("head", name, Overrides(self.model), HEAD)

    def part(self, fields: Fields, key: str, place: Place, sizes: Sizes) -> custom.Program | None:
        """The block of an encoder that a key names; None after noting a problem. sizes: of what is around it"""
        return self._read(key, fields.text(key), Overrides(fields), place, sizes)

    def are_all(self, layers: Iterable[Layer]) -> bool:
        """Whether every one of the layers is a block."""
        if not self.used:
            return False
        from graphsim.models.layers.custom import Program

        return all(isinstance(layer, Program) for layer in layers)

    def finish(self) -> None:
        """Note blocks that nothing uses."""
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
