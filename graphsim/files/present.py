"""Paths that users give: any text may be one, and none of these functions raises an error for it."""

from __future__ import annotations

import os
from pathlib import Path

from graphsim.units import short

_LONGEST_SHOWN = 300
"""Characters of a path that a message repeats."""


def is_present(path: str | Path) -> bool:
    """Whether anything has this path; False as well for a text that no file system takes as a name.

    `Path.exists` raises OSError for a name that is too long.
    """
    return os.path.exists(path)  # noqa: PTH110 - never raises


def is_file(path: str | Path) -> bool:
    """Whether a regular file has this path; False as well for a text that no file system takes as a name."""
    return os.path.isfile(path)  # noqa: PTH113 - never raises


def is_folder(path: str | Path) -> bool:
    """Whether a folder has this path; False as well for a text that no file system takes as a name."""
    return os.path.isdir(path)  # noqa: PTH112 - never raises


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` replaced by the home directory; as it is where nobody has that home.

    `Path.expanduser` raises RuntimeError for a user that does not exist.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - never raises


def shown(path: str | Path) -> str:
    """The path as it appears in a message; quoted and cut where it is longer than any path that someone means."""
    return str(path) if len(str(path)) <= _LONGEST_SHOWN else short(str(path))
