"""Commands, their options, and what happens to errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from graphsim.cli import (
    best,
    calibration,
    catalog,
    completion,
    doctor,
    explain,
    explore,
    export,
    fleet,
    lora,
    run,
    sensitivity,
    serve,
    sweep,
    train,
    validate,
)
from graphsim.cli.parsing import Parser, complain_of
from graphsim.errors import GraphsimError

COMMANDS = (
    run, lora, serve, fleet, train, explain, explore, sweep, best, sensitivity, export, catalog, validate, calibration,
    doctor, completion,
)  # fmt: skip
"""Modules that add their commands to the parser."""


EXAMPLES = """examples:
  graphsim run llama-3.1-8b --hardware h100-sxm --batch 8
  graphsim lora llama-3.1-8b --hardware l4 --engine vllm --lora rank=16,adapters=4,max_loras=8
  graphsim run llama-3.1-8b --hardware l4 --html report.html

Each command has its own: graphsim COMMAND --help
"""


def parser() -> Parser:
    """All commands and options."""
    from graphsim import __version__

    top = Parser(
        prog="graphsim",
        description="What will this model, with these LoRA adapters, on this hardware, cost - and why?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"graphsim {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for module in COMMANDS:
        module.add_commands(commands)
    return top


def dispatch(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    top = parser()
    options, extras = top.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if extras:
        complain_of(top, options.command, extras)
    options.parser = top
    try:
        options.command_function(options)
        sys.stdout.flush()
    except GraphsimError as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        sys.stderr.write(f"graphsim: {error}{notes}\n")
        return 2
    except BrokenPipeError:
        _silence()
    except OSError as error:
        _silence()
        place = f"path = '{error.filename}'" if error.filename else "standard output"
        sys.stderr.write(f"graphsim: {place} cannot be used ({error.strerror or error})\n")
        return 2
    return 0


def _silence() -> None:
    """Nothing more to standard output, not even what is still to be flushed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
