"""Towers: encoders of images and sound for a language model, built of layers like any other part.

A request's media are cut to pieces (an image, a tile of it, a clip of sound), each a sequence of the tower: every
layer's rows are those of a piece, merged, pooled or answered by learned queries on the way to the language model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.stack import stack
from graphsim.models.media import Media
from graphsim.models.phase import Phase, Segment
from graphsim.ops import Join
from graphsim.ops.precision import Precision
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A tower's input from one request: `count` pieces of `height` x `width` rows each (patches; frames, height 1)."""

    count: float
    height: float
    width: float

    @property
    def rows(self) -> float:
        """Rows of each piece."""
        return self.height * self.width


class Cut(ABC):
    """How a request's media become pieces, by the rules of the model's processor. Subclasses are frozen."""

    __slots__ = ()

    @abstractmethod
    def pieces(self, media: Media) -> Pieces:
        """The pieces of one request; a count of 0 if it has no media for this tower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of a piece that a section of a tower works on.

    shared: patches that one of them is made of
    further: learned rows in addition to them (class and register tokens)
    fixed: of a piece whatever its size (learned queries), 0: as many as the patches say
    """

    shared: int = 1
    further: int = 0
    fixed: int = 0

    def of(self, patches: float) -> float:
        """Rows of a piece of this many patches."""
        return float(self.fixed or math.ceil(patches / self.shared)) + self.further


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid(Segment):
    """Equal pieces as sequences; `height` x `width` is their grid of patches."""

    height: float = 1.0
    width: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Layers of a tower that work on identical rows.

    hidden: width of these rows
    prefix: as of a model's layers, with `{}` where there is an index
    first: of the layers
    beside: fed from the section before it, its result is taken by the language model itself
    idle: weights of the transformers class that are not used for the language model
    """

    layers: tuple[Layer, ...]
    hidden: int
    rows: Rows = Rows()
    prefix: str = ""
    first: int = 0
    beside: bool = False
    idle: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """One layer behind another, repeated where they have an index."""
        if "{}" in self.prefix:
            return stack(scope, self.layers, x, self.first)
        for layer in self.layers:
            x = layer.build(scope, x)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A tower from a request's media to rows among the language model's tokens.

    name: prefix of its nodes' names
    cut: media to pieces
    deeper: sections `beside` whose results are added to hidden states of the language model's first layers
    fed: whether its rows are among the prompt's tokens
    seen: whether cross-attention reads its rows instead, in every later step too
    """

    name: str
    cut: Cut
    sections: tuple[Section, ...]
    fed: bool = True
    seen: bool = False

    @property
    def deeper(self) -> int:
        """Number of sections whose rows go to layers of the language model."""
        return sum(section.beside for section in self.sections)

    def build(self, scope: Scope) -> list[str]:
        """The tower of a step of the language model; the values that the model takes.

        None if the step leaves towers out, or has media but none for this one.
        """
        found = self._pieces(scope.phase)
        running = any(segment.media.is_any for segment, _ in found if segment.media)
        if not found or (running and not any(pieces.count for _, pieces in found)):
            return []
        scope = replace(scope, precision=_unquantised(scope.precision), label=f"{self.name}.")
        x, values = "", list[str]()
        for section in self.sections:
            if section.idle and running:
                continue
            inner = self._scope(scope, section, found)
            y = section.build(inner, x)
            if section.beside:
                values.append(y)
            else:
                x = inner.add("idle", Join(elems=0.0), [x, y]) if section.idle and x else y
        return [x, *values]

    def prompt_rows(self, phase: Phase) -> Num:
        """Rows that the tower passes to the language model, of all sequences of a step."""
        return sum((segment.sequences * self._of_pieces(pieces) for segment, pieces in self._pieces(phase)), start=0.0)

    def prompt_tokens(self, media: Media) -> float:
        """Tokens of a prompt that represent a request's media, without separators."""
        return self._of_pieces(self.cut.pieces(media))

    def seen_rows(self, media: Media) -> float:
        """Rows of a request's media that cross-attention reads."""
        return self._rows(self.cut.pieces(media)) if self.seen else 0.0

    def seen_of(self, phase: Phase) -> Num:
        """Rows that layers attend to, of all sequences of a step that encodes them."""
        return sum((segment.sequences * self._rows(pieces) for segment, pieces in self._pieces(phase)), start=0.0)

    def _of_pieces(self, pieces: Pieces) -> float:
        return self._rows(pieces) if self.fed and not self.seen else 0.0

    def _rows(self, pieces: Pieces) -> float:
        return pieces.count * self._last.rows.of(pieces.rows)

    @property
    def _last(self) -> Section:
        return [section for section in self.sections if not section.beside and not section.idle][-1]

    def _pieces(self, phase: Phase) -> list[tuple[Segment, Pieces]]:
        return [(segment, self.cut.pieces(segment.media)) for segment in phase.segments if segment.media is not None]

    def _scope(self, scope: Scope, section: Section, found: Sequence[tuple[Segment, Pieces]]) -> Scope:
        segments = tuple(
            Grid(
                sequences=segment.sequences * pieces.count, new_tokens=section.rows.of(pieces.rows),
                height=pieces.height, width=pieces.width,
            )
            for segment, pieces in found
        )  # fmt: skip
        phase = Phase(name=self.name, segments=segments, logit_rows=0.0, causal=False)
        return replace(scope, phase=phase, hidden=section.hidden, prefix=section.prefix)


def _unquantised(precision: Precision) -> Precision:
    """Towers in the activations' format, whatever the language model's weights are in."""
    return replace(precision, weights=precision.activations, attention=None, experts=None, kv=precision.activations)
