"""Memoised graphs of a trace: the step, its slowest stage and its memory need the same ones.

Equal symbols are the same object, so a phase identifies its graphs.
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
    """The graphs of a phase's stages, built by `make` at the first call.

    shaping: further objects that determine them, compared as by `Memo`
    """
    return _stages.get((*shaping, *_parts(phase)), make)


def _parts(phase: Phase) -> list[Any]:
    kind: Any = type(phase)
    told = [getattr(phase, name) for name in names_of(kind) if name != "segments"]
    for segment in phase.segments:
        of: Any = type(segment)
        told += [of, *[getattr(segment, name) for name in names_of(of)]]
    return told
