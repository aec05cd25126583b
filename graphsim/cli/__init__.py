"""The command line: `graphsim COMMAND …`. Errors go to standard error as one sentence, with exit status 2."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, from loading it on until it is interrupted; returns the exit status."""
    try:
        from graphsim.cli.commands import dispatch

        return dispatch(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("graphsim: interrupted\n")
        return 130
