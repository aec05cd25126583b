"""Graphs of a recording, each made once: a step, its slowest stage and its memory ask for the same ones.

Symbols are the same objects wherever they stand for the same number, so that a phase says which graph it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import networkx as nx

from graphsim.models.phase import Phase
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.substitute import names_of

_stages: Memo[list[nx.DiGraph]] = Memo(most=32)


def made_once(shaping: Iterable[Any], phase: Phase, make: Callable[[], list[nx.DiGraph]]) -> list[nx.DiGraph]:
    """The graphs of a phase's stages, made at the first asking.

    shaping: what shapes them beside the phase, each compared as a Memo compares it
    """
    return _stages.get((*shaping, *_parts(phase)), make)


def _parts(phase: Phase) -> list[Any]:
    kind: Any = type(phase)
    told = [getattr(phase, name) for name in names_of(kind) if name != "segments"]
    for segment in phase.segments:
        of: Any = type(segment)
        told += [of, *[getattr(segment, name) for name in names_of(of)]]
    return told
