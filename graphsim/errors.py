"""The errors graphsim raises for a user's mistake.

    GraphsimError
      ConfigError        a file, a field or an argument is wrong
        InfeasibleError  no engine, or not the engine asked for, can run what is asked
      HardwareError      the machine has no rate or link for what is asked of it
      GraphError         a graph is not a valid program

A message names the place, what was found there and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class GraphsimError(Exception):
    """A mistake in the input that graphsim can explain in a sentence; the base class of all its errors.

    Line breaks and control characters in quoted input appear as escapes, so that the message stays on one line.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    keeps = character.isprintable() or character == "\N{NO-BREAK SPACE}"
    return character if keeps else character.encode("unicode_escape").decode("ascii")


class ConfigError(GraphsimError, ValueError):
    """A file, a field or an argument is wrong."""


class InfeasibleError(ConfigError):
    """The request cannot be run: by any engine, by the engine asked for, or within the limits given."""


class HardwareError(GraphsimError, ValueError):
    """The device has no rate or link for an operation."""


class GraphError(GraphsimError, ValueError):
    """A graph is not a valid program."""


def choices_text(found: object, allowed: Iterable[str]) -> str:
    """The end of an error sentence: the valid choice that was likely meant, then all of them (at most thirty).

    What was found is none of them, whatever `allowed` holds.
    """
    names = sorted({*allowed} - {str(found)})
    near = None if found is None else nearest(str(found), names)
    hint = f"did you mean '{near}'? " if near is not None else ""
    listed = ", ".join(names[:30]) + (f", … ({len(names)} in all)" if len(names) > 30 else "")
    return f"{hint}allowed: {listed}" if names else "nothing is allowed here"


def nearest(found: str, names: Iterable[str]) -> str | None:
    """The name that was likely meant by what was found; None where none is spelt alike, whatever its case."""
    typed = found.lower().lstrip("-")
    ratios = {name: _likeness(typed, name.lower().lstrip("-")) for name in names}
    best = max(ratios, key=lambda name: (ratios[name], name[:1].lower() == typed[:1], name), default=None)
    return best if best is not None and ratios[best] > 0.0 else None


def _likeness(typed: str, name: str) -> float:
    """How alike two spellings are, from 0 to 1; 0 for two that only share some letters by chance.

    People get the beginning of a word right more often than the rest, so words that begin alike need be less alike;
    and names of formats, devices and models often differ in their number alone.
    """
    if not typed or not name:
        return 0.0
    from difflib import SequenceMatcher

    ratio = SequenceMatcher(None, typed, name).ratio()
    numbered = typed[-1].isdigit() and name[-1].isdigit() and typed[:2] == name[:2]
    one_off = len(typed) == len(name) and sum(a != b for a, b in zip(typed, name, strict=True)) == 1
    if typed[0] != name[0]:
        least = 0.5 if typed in re.split(r"[^a-z0-9]+", name) else 0.75
    else:
        least = 0.5 if numbered or one_off else 0.6 if typed[:2] == name[:2] else 0.65
    return ratio if ratio >= least else 0.0


def as_allowed(found: Any, allowed: Iterable[str]) -> Any:
    """The one of `allowed` that a text spells in small or capital letters; what was found, where there is none."""
    if not isinstance(found, str):
        return found
    names = list(allowed)
    return found if found in names else next((name for name in names if name.lower() == found.lower()), found)


DISTRIBUTION = "graphsim-llm"
"""What pip knows the installed package by; the import is `graphsim`."""


def install_text(extra: str) -> str:
    """The command that adds an extra to an installed graphsim."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def needs(package: str, extra: str, what: str = "this", instead: str = "") -> ConfigError:
    """The error for an optional package that is not installed.

    what: needs it, such as a file's name
    instead: what would do without it
    """
    other = f", or {instead}" if instead else ""
    return ConfigError(f"{what} needs the package '{package}'; install it with: {install_text(extra)}{other}")
