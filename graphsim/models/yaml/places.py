"""The roles of a block in a model file, and the sizes around it."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.phase import Phase, decode, prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The role of a block.

    entered: whether it has an input
    idle: whether it may consist of weights alone, without operations
    """

    name: str
    entered: bool = True
    idle: bool = False


LAYER, STEM, HEAD = Place(name="layer"), Place(name="stem", entered=False), Place(name="head")

PROMPT, DECODE = prefill(3.0, 5.0, source_tokens=11.0), decode(3.0, 7.0, source_tokens=11.0)
"""The steps that every block is built for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes around the block.

    source: width of the encoder's rows that it also takes, 0 for none
    entering: elements of its input in a step, by default those of its tokens on all streams
    steps: the steps for which it is built
    """

    hidden: int
    streams: int = 1
    vocabulary: int = 0
    source: int = 0
    entering: float | None = None
    steps: tuple[Phase, ...] = (PROMPT, DECODE)
