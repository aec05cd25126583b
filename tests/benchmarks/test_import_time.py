"""Importing the package costs next to nothing, so that scripts and the command line start at once."""

from __future__ import annotations

import statistics
import subprocess
import sys

TURNS = 5


def import_us(statement: str) -> int:
    """Microseconds that Python's own import timer gives to all modules that a statement loads."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    report = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stderr
    own = [line.removeprefix("import time:").split("|")[0].strip() for line in report.splitlines()]
    return sum(int(text) for text in own if text.isdigit())


def test_importing_graphsim_costs_less_than_half_of_importing_networkx_numpy_and_pandas() -> None:
    bare = [import_us("pass") for _ in range(TURNS)]
    ours = [import_us("import graphsim") for _ in range(TURNS)]
    theirs = [import_us("import networkx, numpy, pandas") for _ in range(TURNS)]
    base = statistics.median(bare)
    assert statistics.median(ours) - base <= 0.5 * (statistics.median(theirs) - base)


def test_importing_graphsim_loads_none_of_the_large_libraries() -> None:
    code = "import sys, graphsim; print([m for m in ('numpy', 'pandas', 'networkx', 'yaml') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
