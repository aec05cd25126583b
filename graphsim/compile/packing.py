"""What another process gets: pickled, with a sentence where that cannot be."""

from __future__ import annotations

import pickle
from typing import Any

from graphsim.errors import ConfigError

_UNPICKLABLE = (pickle.PicklingError, AttributeError, ImportError, TypeError)
"""What pickle raises for a function or class that it finds in no module."""


def packed(thing: Any, verb: str) -> bytes:
    """The pickled thing. Raises ConfigError, in the name of a verb, for cost functions and passes of no module."""
    try:
        return pickle.dumps(thing)
    except _UNPICKLABLE as error:
        raise _not_importable(verb, error) from None


def unpacked(pickled: bytes, verb: str) -> Any:
    """What was pickled. Raises ConfigError where this process finds no module that a cost function or pass is from."""
    try:
        return pickle.loads(pickled)
    except _UNPICKLABLE as error:
        raise _not_importable(verb, error) from None


def _not_importable(verb: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{verb}: a cost function or pass cannot go to another process, it must be importable from a module "
        f"({str(error).rstrip('.')})"
    )
