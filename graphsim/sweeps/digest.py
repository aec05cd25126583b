"""A digest of a request, by which interrupted work is recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np


def digest_of(*things: Any) -> str:
    """A digest of values and this version of graphsim; the same in every process."""
    from graphsim import __version__

    digest = hashlib.sha256(__version__.encode())
    for text in _texts(things):
        digest.update(text.encode("utf-8", "replace") + b"\0")
    return digest.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    """A value as text, the same in every process; file locations do not count."""
    if isinstance(value, Mapping):
        yield "mapping"
        for key, entry in value.items():
            yield str(key)
            yield from _texts(entry)
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        yield f"{len(value)} entries"
        for entry in value:
            yield from _texts(entry)
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__qualname__
        for field in fields(value):
            yield from _texts(getattr(value, field.name))
    elif callable(value):
        yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    elif not isinstance(value, Path):
        yield repr(value.item() if isinstance(value, np.generic) else value)
