"""`graphsim sensitivity`: elasticities of the latency."""

from __future__ import annotations

import argparse
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.basis import print_basis, served_basis
from graphsim.cli.printing import print_json, print_line, print_table
from graphsim.units import amount_text, scaled, seconds_text

EXAMPLES = """examples:
  graphsim sensitivity llama-3.1-8b --hardware h100-sxm --batch 8
  graphsim sensitivity llama-3.1-70b --hardware h100-sxm --tp 4 --lora rank=16 --json
"""
_UNITS = {"memory_bandwidth": "B/s", "peak_flops": "FLOP/s", "link_bandwidth": "B/s"}
_MATTERS = 0.0005
"""Elasticities smaller than this are printed as 0."""


def add_commands(commands: Any) -> None:
    """Add `sensitivity`."""
    parser = shared.add_command(commands, "sensitivity", EXAMPLES)
    shared.add_model(parser)
    shared.add_requests(parser)
    shared.add_deployment(parser)
    shared.add_json(parser)
    parser.set_defaults(command_function=sensitivity)


def sensitivity(options: argparse.Namespace) -> None:
    """Compute the elasticities and print them."""
    from graphsim.analysis.sensitivity import sensitivity as vary

    deployment = shared.deployment(options)
    frame = vary(deployment, **shared.requests(options))
    notes = [deployment.caution] if deployment.caution else []
    basis = served_basis(deployment)
    if options.json:
        print_json({"basis": basis.to_dict(), "elasticities": frame.to_dict("index"), "notes": notes})
        return
    print_basis([basis])
    print_line("percent of change for one percent more of each parameter")
    rows = []
    for row in frame.reset_index().to_dict("records"):
        name = str(row["parameter"])
        elasticities = [_percent(row[time]) for time in ("ttft", "tpot", "latency")]
        rows.append([name.replace("_", " "), _value(name, row["value"]), *elasticities])
    print_table(["parameter", "now", "TTFT", "TPOT", "latency"], rows, right=range(1, 5))
    for note in notes:
        print_line(f"note: {note}")


def _value(name: str, value: float) -> str:
    if name in _UNITS:
        return scaled(value, _UNITS[name])
    return seconds_text(value) if name in ("launch", "link_latency") else amount_text(value)


def _percent(value: float) -> str:
    return "0" if abs(value) < _MATTERS else f"{value:+.3f}"
