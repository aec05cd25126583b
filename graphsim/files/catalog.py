"""Finding model, hardware and engine files by name: in the user's folders first, then among the shipped files.

A user's folders are `./models` and `./hardware` in the working directory, and the same below the folders in
`$GRAPHSIM_PATH` (separated as in PATH) and below `~/.config/graphsim`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from stat import S_ISDIR

from graphsim.errors import ConfigError, choices_text
from graphsim.files.present import expanded, is_present
from graphsim.units import short

MODELS = "models"
"""The kind of the files of models."""

_SUFFIXES = (".yaml", ".yml")


def folders(kind: str) -> Iterator[Path]:
    """Folders that may contain files of a kind, in search order."""
    return (folder for folder, _ in _found(kind))


def _found(kind: str) -> Iterator[tuple[Path, os.stat_result]]:
    home = os.path.expanduser("~/.config/graphsim")  # noqa: PTH111 - never raises
    seen: set[tuple[int, int]] = set()
    for folder in _candidates(kind, os.environ.get("GRAPHSIM_PATH", ""), home):
        try:
            found = os.stat(folder)  # noqa: PTH116 - asked at every call
        except (OSError, ValueError):
            continue
        identity = found.st_dev, found.st_ino  # the working directory may be the checkout itself
        if S_ISDIR(found.st_mode) and identity not in seen:
            seen.add(identity)
            yield folder, found


@lru_cache(maxsize=16)
def _candidates(kind: str, listed: str, home: str) -> tuple[Path, ...]:
    own = [Path(entry) for entry in listed.split(os.pathsep) if entry]
    return tuple(root / kind for root in (Path(), *own, Path(home), shipped_root()))


@cache
def shipped_root() -> Path:
    """The folder of the files shipped with graphsim: inside the package in a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package.parent / "graphsim_data"
    return installed if installed.is_dir() else package.parent


def list_names(kind: str) -> list[str]:
    """File stems of a kind in all folders, sorted."""
    return sorted({stem for found in _found(kind) for stem in _stems(*found)})


def list_files(kind: str) -> dict[str, str]:
    """The path of the first file for each name of a kind."""
    found: dict[str, str] = {}
    for folder, status in reversed([*_found(kind)]):
        root = str(folder)
        found |= {stem: f"{root}{os.sep}{file}" for stem, file in _stems(folder, status).items()}
    return found


def _stems(folder: Path, status: os.stat_result) -> Mapping[str, str]:
    """File names in a folder by stem, sorted."""
    try:
        return _listed(str(folder), (status.st_dev, status.st_ino, status.st_mtime_ns))
    except OSError:  # an unreadable folder counts as empty
        return {}


@lru_cache(maxsize=64)
def _listed(folder: str, _identity: tuple[int, int, int]) -> Mapping[str, str]:
    names = sorted(entry for entry in os.listdir(folder) if entry.endswith(_SUFFIXES))  # noqa: PTH208
    return {os.path.splitext(name)[0]: name for name in reversed(names)}  # noqa: PTH122


def held(kind: str, stem: str) -> Path | None:
    """The first file of a kind with exactly this name; None if there is none."""
    for folder, status in _found(kind):
        stems = _stems(folder, status)
        if stem in stems:
            return folder / stems[stem]
    return None


def is_path(ref: str | Path) -> bool:
    """Whether a reference is the path of a file rather than a name in the catalog."""
    text = str(ref)
    return isinstance(ref, Path) or "/" in text or os.sep in text or Path(text).suffix in (*_SUFFIXES, ".json")


def find_file(kind: str, ref: str | Path) -> Path:
    """The file of a kind that a name or a path refers to; `H100_SXM` finds `h100-sxm`.

    Raises ConfigError with the nearest known name.
    """
    text = str(ref)
    if is_path(ref):
        path = expanded(text)
        if not is_present(path):
            raise ConfigError(f"{short(text)}: no such {kind.removesuffix('s')} file")
        return path
    found = named(kind, text)
    if found is None:
        word, names = kind.removesuffix("s"), choices_text(text.lower(), list_names(kind))
        raise ConfigError(f"{word} {short(text)} is not known; {names}")
    return found


def named(kind: str, text: str) -> Path | None:
    """The file of a kind with this name, regardless of case, spaces, hyphens and underscores; None if there is none."""
    exact = held(kind, text)
    if exact is not None:
        return exact
    for folder, status in _found(kind):
        for stem, name in _stems(folder, status).items():
            if _plain(stem) == _plain(text):
                return folder / name
    return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
