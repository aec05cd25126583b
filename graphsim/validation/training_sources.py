"""What the source of a row says against its columns."""

from __future__ import annotations

from graphsim.files.measured import Row
from graphsim.validation.training_cells import text_of

ACCUMULATED = {"scripts/benchmarks/refs_orca/": 2.0}
"""Micro-batches of a step, by words of the source, where rows count one and give its share of the step's time.

fms-acceleration, scripts/benchmarks/scenarios-orca.yaml: gradient_accumulation_steps is 2; in
refs_orca/a100_80gb_pf.csv samples per second over steps per second are twice the sequences of all devices'
micro-batches.
"""


def accumulated_of(row: Row) -> float:
    """Micro-batches of a step for each one that the row counts; 1 where the row says it all."""
    source = text_of(row, "source")
    return next((count for words, count in ACCUMULATED.items() if words in source), 1.0)
