"""Where a block of a model file may stand, and the sizes of what is around it."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.phase import Phase, decode, prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a block stands for.

    entered: whether a value enters it
    idle: whether it may be weights alone that no row passes
    """

    name: str
    entered: bool = True
    idle: bool = False


LAYER, STEM, HEAD = Place(name="layer"), Place(name="stem", entered=False), Place(name="head")

PROMPT, DECODE = prefill(3.0, 5.0, source_tokens=11.0), decode(3.0, 7.0, source_tokens=11.0)
"""The steps that every block is built for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of what is around the block.

    source: width of an encoder's rows that enter beside its own, 0: none do
    entering: elements that enter in a step, by default those of its tokens on all streams; steps: to build it for
    """

    hidden: int
    streams: int = 1
    vocabulary: int = 0
    source: int = 0
    entering: float | None = None
    steps: tuple[Phase, ...] = (PROMPT, DECODE)
