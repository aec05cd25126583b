"""The command line as tests call it."""

from __future__ import annotations

from collections.abc import Sequence

from graphsim.cli import main


def status_of(words: Sequence[str]) -> int:
    """The exit status of a command, also where argparse leaves by itself."""
    try:
        return main(list(words))
    except SystemExit as stop:
        return int(stop.code or 0)
