"""The command line: `graphsim COMMAND …`. Errors go to standard error as one sentence, with exit status 2."""

from graphsim.cli.main import main as main
