"""JSON documents of graphs with something in them changed: read or refused, and what was read is priced or refused."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import graphsim as gs
from graphsim.export.node_link import from_json, to_json
from tests.fuzz.graphs import bases
from tests.fuzz.hostile import changed, spoilt
from tests.fuzz.runner import Fuzzer, require_finite


@cache
def texts() -> tuple[str, ...]:
    """Of small graphs; one of them with the operations of every kind of number."""
    return tuple(to_json(graph) for graph in (*bases()[:2], *bases()[3:7]))


def case(rng: random.Random, folder: Path) -> None:
    text = rng.choice(texts())
    if rng.random() < 0.7:
        source: Any = changed(json.loads(text), rng)
        source = source if rng.random() < 0.5 else json.dumps(source)
    elif rng.random() < 0.05:
        depth = rng.choice((100, 10_000, 200_000))
        source = '{"format": "graphsim", "version": 1, "graph": {"a": ' + "[" * depth + "]" * depth + "}}"
    else:
        source = folder / "graph.json"
        source.write_bytes(spoilt(text, rng))
    priced(from_json(source))


def priced(graph: Any) -> None:
    to_json(graph)
    require_finite(gs.critical_path(gs.annotate(graph, "l4")).latency_s)


def sound(folder: Path) -> None:
    for text in texts():
        priced(from_json(text))


FUZZER = Fuzzer("documents", case, sound)
