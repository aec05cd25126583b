"""The argument parser with all commands, and the handling of errors."""

from __future__ import annotations

import argparse
import codecs
import gc
import io
import os
import sys
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TextIO

from graphsim.cli.listing import COMMANDS, module_of
from graphsim.cli.naming import as_options
from graphsim.cli.parsing import Parser, complain_of, subparsers
from graphsim.errors import GraphsimError

EXAMPLES = """examples:
  graphsim run llama-3.1-8b --hardware h100-sxm --batch 8
  graphsim lora llama-3.1-8b --hardware l4 --engine vllm --lora rank=16,adapters=4,max_loras=8
  graphsim run llama-3.1-8b --hardware l4 --html report.html

Help on each command: graphsim COMMAND --help
"""


def parser(words: Sequence[str] | None = None) -> Parser:
    """The parser of all commands with all their options.

    words: a command line; only the module of its command is then imported, and only that command has its options
    """
    from graphsim import __version__

    top = Parser(
        prog="graphsim",
        description="What will this model, with these LoRA adapters, on this hardware, cost - and why?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"graphsim {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for module, texts in COMMANDS.items():
        if words is None or module == module_of(_first_word(words)):
            import_module(f"graphsim.cli.{module}").add_commands(commands)
        else:
            for name, text in texts.items():
                commands.add_parser(name, help=text)
    return top


def _first_word(words: Sequence[str]) -> str:
    """The word in the position of the command; empty if there is none."""
    return next((word for word in words if not word.startswith("-")), "")


def dispatch(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status. Without a command, print the help."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        _replace_what_cannot_be_encoded(stream)
    words = sys.argv[1:] if arguments is None else arguments
    top = parser(words)
    options, extras = top.parse_known_args(words)
    if extras:
        complain_of(top, options.command, extras)
    options.all_commands, options.written = parser, []
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    if not options.command:
        return _ended(top.print_help)
    status = _ended(partial(options.command_function, options), subparsers(top)[options.command]._option_string_actions)
    sys.stderr.writelines(options.written)
    return status


def _ended(command: Callable[[], object], options: Container[str] = ()) -> int:
    """Run a command and return its exit status; an error is printed as one sentence, which names the options."""
    try:
        command()
        sys.stdout.flush()
    except GraphsimError as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        sys.stderr.write(f"graphsim: {as_options(str(error), options)}{notes}\n")
        return 2
    except BrokenPipeError:
        _silence()
    except OSError as error:
        _silence()
        place = f"path = '{error.filename}'" if error.filename else "standard output"
        sys.stderr.write(f"graphsim: {place} cannot be used ({error.strerror or error})\n")
        return 2
    return 0


_ASCII = {"µ": "u", "…": "...", "–": "-", "—": "-", "×": "x", "±": "+-", "≥": ">=", "≤": "<="}


def _replace_what_cannot_be_encoded(stream: TextIO) -> None:
    """Write characters that the stream's encoding lacks in another way, instead of raising an error."""
    codecs.register_error("graphsim", _in_ascii)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="graphsim")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in found), error.end


def _silence() -> None:
    """Discard further standard output, including what is not flushed yet; a stream in memory is left unchanged."""
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
