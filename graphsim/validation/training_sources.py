"""Corrections to a row's columns from its source."""

from __future__ import annotations

from graphsim.files.measured import Row
from graphsim.validation.training_cells import text_of

ACCUMULATED = {"scripts/benchmarks/refs_orca/": 2.0}
"""Micro-batches per step, by words of the source, for rows that count one and give its share of the step's time.

fms-acceleration, scripts/benchmarks/scenarios-orca.yaml: gradient_accumulation_steps is 2; in
refs_orca/a100_80gb_pf.csv samples per second over steps per second are twice the sequences of all devices'
micro-batches.
"""


def accumulated_of(row: Row) -> float:
    """Micro-batches per step for each one that the row counts; 1 if the row counts all."""
    source = text_of(row, "source")
    return next((count for words, count in ACCUMULATED.items() if words in source), 1.0)
