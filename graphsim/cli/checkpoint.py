"""Comparison of a model's structure with its checkpoint, as a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphsim.cli.printing import print_line, print_table
from graphsim.units import bytes_text, count_text

if TYPE_CHECKING:
    from graphsim.models.checkpoint.report import CheckpointReport


def checkpoint_facts(report: CheckpointReport) -> dict[str, Any]:
    """The report as plain JSON values."""
    return {
        "source": report.source,
        "precision": report.precision,
        "structure_parameters": report.parameters,
        "structure_bytes": report.bytes,
        "checkpoint_parameters": report.checkpoint_parameters,
        "checkpoint_bytes": report.checkpoint_bytes,
        "explained_bytes": report.explained_bytes,
        "explained": report.explained,
        "differences": [{"module": each.module, "text": each.text} for each in report.differences],
        "notes": list(report.notes),
    }


def print_checkpoint(report: CheckpointReport) -> None:
    """Print parameters and bytes of both, the share that is explained, the differences, and further remarks."""
    from graphsim.models.checkpoint.refusal import sentences

    print_line(f"\ncheckpoint: {report.source}")
    held = report.checkpoint_parameters
    print_table(
        ["", "parameters", "bytes"],
        [
            [f"structure in {report.precision}", count_text(report.parameters), bytes_text(report.bytes)],
            ["checkpoint", "-" if held is None else count_text(held), bytes_text(report.checkpoint_bytes)],
        ],
        right=(1, 2),
    )
    if report.explained is not None:
        print_line(f"\nexplained: {percent(report.explained)} of the checkpoint's bytes")
    for text in report.notes:
        print_line(f"note: {text}")
    if not report.differences:
        print_line("no module differs")
        return
    print_line(f"\n{len(report.differences)} modules differ:")
    for text in sentences(report.differences):
        print_line(f"  {text}")


def percent(share: float) -> str:
    """A share in percent, rounded down, so that only a complete share gives 100%."""
    return f"{int(share * 1e4) / 100:.2f}%"
