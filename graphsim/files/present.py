"""Checks of paths from users. None of these functions but `path_of` raises an error, whatever the text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError
from graphsim.units import short

_LONGEST_SHOWN = 300
"""Maximum number of characters of a path in a message."""


def path_of(path: Any, name: str = "path") -> Path:
    """A user's path. Raises ConfigError, naming the argument, unless it is a text or a path without null characters."""
    if not isinstance(path, str | Path | os.PathLike) or "\0" in str(path):
        raise ConfigError(f"{name} = {short(path)} is not allowed; expected the path of a file or folder")
    return Path(path)


def is_present(path: str | Path) -> bool:
    """Whether the path exists; False as well for a text that is not a valid path.

    `Path.exists` raises OSError for a name that is too long.
    """
    return os.path.exists(path)  # noqa: PTH110 - never raises


def is_file(path: str | Path) -> bool:
    """Whether the path is a regular file; False as well for a text that is not a valid path."""
    return os.path.isfile(path)  # noqa: PTH113 - never raises


def is_folder(path: str | Path) -> bool:
    """Whether the path is a folder; False as well for a text that is not a valid path."""
    return os.path.isdir(path)  # noqa: PTH112 - never raises


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` replaced by the home directory; unchanged if there is no such user.

    `Path.expanduser` raises RuntimeError for a user that does not exist.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - never raises


def shown(path: str | Path) -> str:
    """The path as shown in a message; quoted and truncated if it is too long for a plausible path."""
    return str(path) if len(str(path)) <= _LONGEST_SHOWN else short(str(path))
