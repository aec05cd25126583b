"""The command line: `graphsim COMMAND …`. Errors go to standard error as one sentence, with exit status 2."""

import gc
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Import and run a command; returns the exit status.

    arguments: the command line, by default that of the process; garbage collection is then paused while modules are
        imported, since they leave no garbage
    """
    if arguments is None:
        gc.disable()
    try:
        from graphsim.cli.commands import dispatch

        return dispatch(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("graphsim: interrupted\n")
        return 130
