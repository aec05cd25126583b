"""Finding model, hardware and engine files by name: the user's folders first, then what is shipped.

A user's folder is `./models` and `./hardware` in the working directory, the same below
`$GRAPHSIM_PATH` (folders separated as in PATH), and below `~/.config/graphsim`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from graphsim.errors import ConfigError, choices_text
from graphsim.units import short

_SUFFIXES = (".yaml", ".yml")


def folders(kind: str) -> Iterator[Path]:
    """Folders that may hold files of a kind, in the order in which they are searched."""
    roots = [Path()]
    roots += [Path(entry) for entry in os.environ.get("GRAPHSIM_PATH", "").split(os.pathsep) if entry]
    roots += [Path(os.path.expanduser("~/.config/graphsim")), shipped_root()]  # noqa: PTH111 - never raises
    seen: set[str] = set()
    for root in roots:
        folder = root / kind
        if not os.path.isdir(folder):  # noqa: PTH112 - never raises
            continue
        identity = os.path.realpath(folder)  # the working folder may be the checkout itself
        if identity not in seen:
            seen.add(identity)
            yield folder


def shipped_root() -> Path:
    """Where the files that come with graphsim lie: beside the package in a wheel or in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package.parent / "graphsim_data"
    return installed if installed.is_dir() else package.parent


def list_names(kind: str) -> list[str]:
    """File stems of a kind in all folders, sorted."""
    return sorted({path.stem for folder in folders(kind) for path in _files(folder)})


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except OSError:  # a folder that may not be read holds nothing for us
        return []


def find_file(kind: str, ref: str | Path) -> Path:
    """The file of a kind that a name or a path refers to; `H100_SXM` finds `h100-sxm`.

    Raises ConfigError with the nearest known name.
    """
    text = str(ref)
    if isinstance(ref, Path) or "/" in text or os.sep in text or Path(text).suffix in (*_SUFFIXES, ".json"):
        path = Path(os.path.expanduser(text))  # noqa: PTH111 - never raises
        if not os.path.exists(path):  # noqa: PTH110 - never raises
            raise ConfigError(f"{short(text)}: no such {kind.removesuffix('s')} file")
        return path
    files = [path for folder in folders(kind) for path in _files(folder)]
    for same in (lambda stem: stem == text, lambda stem: _plain(stem) == _plain(text)):
        for path in files:
            if same(path.stem):
                return path
    names = choices_text(text.lower(), (path.stem for path in files))
    raise ConfigError(f"{kind.removesuffix('s')} {short(text)} is not known; {names}")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
