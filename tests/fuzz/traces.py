"""Trace files of every layout with something in them changed: read and served, or refused."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

import numpy as np

import graphsim as gs
from tests.fuzz.graphs import MODEL
from tests.fuzz.hostile import PIECES, VALUES, changed, spoilt
from tests.fuzz.runner import Fuzzer, require_finite
from tests.traffic.formats import files

SERVED = 40
"""Requests at most, with as many tokens each, of what is served and not only read."""


@cache
def deployment() -> gs.Deployment:
    return gs.Deployment(MODEL, "h100-sxm")


def tried(path: Path) -> None:
    traffic = gs.Traffic.from_file(path)
    table = traffic.table()
    require_finite(table.input_tokens, table.output_tokens)
    assert len(table) and (table.input_tokens > 0).all() and (table.output_tokens > 0).all()
    small = len(table) <= SERVED and np.max(table.input_tokens + table.output_tokens) <= 1000
    if small:
        found = gs.serve(deployment(), traffic).summary()
        require_finite(found["request_throughput"], found["duration"])


def case(rng: random.Random, folder: Path) -> None:
    name = rng.choice(sorted(files.TEXTS))
    text, path = files.TEXTS[name], folder / name
    kind = rng.random()
    if "json" in name and kind < 0.6:
        rows = [json.loads(line) for line in text.splitlines()]
        changed_rows = changed(rows, rng)
        path.write_text("".join(json.dumps(row) + "\n" for row in changed_rows), encoding="utf-8")
    elif name.endswith(".csv") and kind < 0.6:
        rows = [line.split(",") for line in text.splitlines()]
        for _ in range(rng.randint(1, 3)):
            row = rng.choice(rows)
            row[rng.randrange(len(row))] = str(rng.choice((*VALUES[:24], *PIECES)))
        path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8", errors="replace")
    else:
        path.write_bytes(spoilt(text, rng))
    tried(path)


def sound(folder: Path) -> None:
    for name, text in files.TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
        tried(folder / name)


FUZZER = Fuzzer("traces", case, sound)
