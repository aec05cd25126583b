"""Pickling for other processes, with a readable error if an object cannot be pickled."""

from __future__ import annotations

import pickle
from typing import Any

from graphsim.errors import ConfigError

_UNPICKLABLE = (pickle.PicklingError, AttributeError, ImportError, TypeError)
"""What pickle raises for a function or class that is in no importable module."""


def packed(thing: Any, verb: str) -> bytes:
    """The pickled thing. Raises ConfigError, naming the calling function, for cost functions and passes that are in no
    importable module.
    """
    try:
        return pickle.dumps(thing)
    except _UNPICKLABLE as error:
        raise _not_importable(verb, error) from None


def unpacked(pickled: bytes, verb: str) -> Any:
    """The unpickled object. Raises ConfigError if this process cannot import the module of a cost function or pass."""
    try:
        return pickle.loads(pickled)
    except _UNPICKLABLE as error:
        raise _not_importable(verb, error) from None


def _not_importable(verb: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{verb}: a cost function or pass cannot go to another process, it must be importable from a module "
        f"({str(error).rstrip('.')})"
    )
