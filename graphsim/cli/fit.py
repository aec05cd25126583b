"""`graphsim fit`: what fits in memory, and on how many devices."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.basis import served_basis
from graphsim.cli.printing import print_json, print_line, print_table
from graphsim.units import bytes_text

if TYPE_CHECKING:
    from graphsim.deployment.inference import Inference

EXAMPLES = """examples:
  graphsim fit llama-3.1-8b --hardware h100-sxm
  graphsim fit llama-3.1-70b --hardware h100-sxm --batch 64 --input 8k --output 1k
  graphsim fit llama-3.1-8b --hardware l4 --lora rank=64,targets=all-linear --precision fp8 --json
"""


def add_commands(commands: Any) -> None:
    """Add `fit`."""
    parser = shared.add_command(commands, "fit", EXAMPLES)
    shared.add_model(parser)
    shared.add_requests(parser)
    shared.add_deployment(parser)
    shared.add_json(parser)
    parser.set_defaults(command_function=fit)


def fit(options: argparse.Namespace) -> None:
    """Search and print."""
    from graphsim.analysis.fit import fit as search

    deployment = shared.deployment(options)
    found = search(deployment, **shared.requests(options))
    if options.json:
        print_json({"basis": served_basis(deployment).to_dict()} | found.to_dict())
        return
    headline, *_ = str(found).splitlines()
    print_line(f"{headline}\n")
    memory = found.memory
    used = f"{bytes_text(float(memory.total_bytes))} of {bytes_text(float(memory.capacity_bytes))}"
    print_table(["what fits", ""], [["memory per device", used], *map(list, found.rows())])
    if found.remedies:
        print_line(f"\nwould fit {found.would_fit}")


def print_what_would_fit(inference: Inference | None) -> None:
    """Print the changes with which a deployment would fit, if it does not."""
    from graphsim.analysis.placements import fewest_devices, remedies

    if inference is None or inference.memory().fits is not False:
        return
    text = ", or ".join(remedy.text for remedy in remedies(inference, fewest_devices(inference)))
    print_line(f"would fit {text}" if text else "does not fit on up to 64 devices either, nor in narrower formats")
