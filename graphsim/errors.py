"""The errors graphsim raises for a user's mistake.

    GraphsimError
      ConfigError        a file, a field or an argument is wrong
        InfeasibleError  no engine, or not the engine asked for, can run what is asked
      HardwareError      the machine has no rate or link for what is asked of it
      GraphError         a graph is not a valid program

A message names the place, what was found there and what is allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GraphsimError(Exception):
    """Any mistake of the user's that graphsim can explain in a sentence."""


class ConfigError(GraphsimError, ValueError):
    """A file, a field or an argument is wrong."""


class InfeasibleError(ConfigError):
    """What is asked cannot be run: by any engine, by the one asked for, or within the limits given."""


class HardwareError(GraphsimError, ValueError):
    """The machine has no rate or link for what is asked of it."""


class GraphError(GraphsimError, ValueError):
    """A graph is not a valid program."""


def choices_text(found: object, allowed: Iterable[str]) -> str:
    """The end of an error sentence: the nearest valid choice, then all of them (at most thirty).

    What was found is none of them, whatever `allowed` holds.
    """
    names = sorted({*allowed} - {str(found)})
    near = difflib.get_close_matches(str(found), names, n=1, cutoff=0.5) if found is not None else []
    hint = f"did you mean '{near[0]}'? " if near else ""
    listed = ", ".join(names[:30]) + (f", … ({len(names)} in all)" if len(names) > 30 else "")
    return f"{hint}allowed: {listed}" if names else "nothing is allowed here"


def needs(package: str, extra: str) -> ConfigError:
    """The error for an optional package that is not installed."""
    return ConfigError(f"this needs the package '{package}'; install it with: pip install 'graphsim[{extra}]'")
