"""Finding model, hardware and engine files by name: the user's folders first, then what is shipped.

A user's folder is `./models` and `./hardware` in the working directory, the same below
`$GRAPHSIM_PATH` (folders separated as in PATH), and below `~/.config/graphsim`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from graphsim.errors import ConfigError, choices_text

_SUFFIXES = (".yaml", ".yml")


def folders(kind: str) -> Iterator[Path]:
    """Folders that may hold files of a kind, in the order in which they are searched."""
    roots = [Path.cwd()]
    roots += [Path(entry) for entry in os.environ.get("GRAPHSIM_PATH", "").split(os.pathsep) if entry]
    roots += [Path.home() / ".config" / "graphsim", shipped_root()]
    seen: set[Path] = set()
    for root in roots:
        folder = root / kind
        if folder not in seen and folder.is_dir():
            seen.add(folder)
            yield folder


def shipped_root() -> Path:
    """Where the files that come with graphsim lie: beside the package in a wheel or in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package.parent / "graphsim_data"
    return installed if installed.is_dir() else package.parent


def list_names(kind: str) -> list[str]:
    """File stems of a kind in all folders, sorted."""
    return sorted({path.stem for folder in folders(kind) for path in folder.iterdir() if path.suffix in _SUFFIXES})


def find_file(kind: str, ref: str | Path) -> Path:
    """The file of a kind that a name or a path refers to.

    Raises ConfigError with the nearest known name.
    """
    text = str(ref)
    if isinstance(ref, Path) or "/" in text or os.sep in text or Path(text).suffix in (*_SUFFIXES, ".json"):
        path = Path(text).expanduser()
        if not path.exists():
            raise ConfigError(f"{path}: no such {kind.removesuffix('s')} file")
        return path
    for folder in folders(kind):
        for suffix in _SUFFIXES:
            if (path := folder / f"{text}{suffix}").is_file():
                return path
    raise ConfigError(f"{kind.removesuffix('s')} '{text[:80]}' is not known; {choices_text(text, list_names(kind))}")
