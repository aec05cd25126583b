"""The command line: `graphsim COMMAND …`. Errors go to standard error as one sentence, with exit status 2."""

import gc
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, from loading it on until it is interrupted; returns the exit status.

    arguments: by default those of the process, which is then the command's own: while it loads, nothing that it makes
        is garbage, and nothing is searched for any
    """
    if arguments is None:
        gc.disable()
    try:
        from graphsim.cli.commands import dispatch

        return dispatch(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("graphsim: interrupted\n")
        return 130
