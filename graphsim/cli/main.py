"""Commands, their options, and what happens to errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from graphsim.cli import best, calibration, catalog, doctor, explain, export, lora, run, sensitivity, sweep, validate
from graphsim.errors import GraphsimError

COMMANDS = (run, lora, explain, sweep, best, sensitivity, export, catalog, validate, calibration, doctor)
"""Modules that add their commands to the parser."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    from graphsim import __version__

    top = _Parser(
        prog="graphsim",
        description="What will this model, with these LoRA adapters, on this hardware, cost - and why?",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"graphsim {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for module in COMMANDS:
        module.add_commands(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        options.command_function(options)
        sys.stdout.flush()
    except GraphsimError as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        sys.stderr.write(f"graphsim: {error}{notes}\n")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.stderr.write("graphsim: interrupted\n")
        return 130
    return 0
