"""Temporary replacement of functions and methods."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Context in which an attribute of a module or class has another value."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def loaded(name: str) -> Any:
    """The module of this name if it has been imported already, else None."""
    return sys.modules.get(name)
