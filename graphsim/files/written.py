"""Writing files atomically, and reading them back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from graphsim.errors import ConfigError
from graphsim.files.present import is_folder, is_present, path_of, shown


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 file and return its path. Raises ConfigError stating why it cannot be written."""
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file; an existing one is kept until the new one is complete.

    Raises ConfigError stating why it cannot be written.
    """
    return _write(path, [content])


def write_lines(path: str | Path, lines: Iterable[str]) -> Path:
    """Write lines one at a time, without holding them all in memory; the file is complete or not written at all."""
    return _write(path, (line.encode("utf-8", errors="replace") + b"\n" for line in lines))


def _write(path: str | Path, parts: Iterable[bytes]) -> Path:
    with whole(path) as file, file.open("wb") as new:
        new.writelines(parts)
    return Path(path)


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Context with a temporary file next to `path` that replaces it on success; after an error, `path` is unchanged.

    The temporary file has the suffix of `path`, from which some libraries derive the format. A path that is not a
    regular file, such as a pipe, is used directly. Raises ConfigError naming the path and the reason if it cannot be
    written.
    """
    target = path_of(path)
    try:
        if is_present(target) and not target.is_file():  # a directory, or a pipe, whose links lead to no path
            yield target
            return
        real = target.resolve() if target.is_symlink() else target
        kept = real.stat().st_mode & 0o777 if is_present(real) else 0o666 & ~_umask()
        number, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.stem[:80]}.", suffix=real.suffix)
        os.close(number)
        made = Path(name)
        try:
            yield made
            made.chmod(kept)
            made.replace(real)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"path = '{shown(target)}' cannot be written to {_why(error, target)}") from None


def _why(error: OSError, target: Path) -> str:
    gone = f"; there is no folder '{shown(target.parent)}'" if not is_folder(target.parent) else ""
    return f"({error.strerror or error}){gone}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_text(path: str | Path) -> str:
    """A file's text. Raises ConfigError stating why it cannot be read."""
    try:
        return path_of(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"path = '{shown(path)}' cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, ValueError):
        raise ConfigError(f"path = '{path}' is not a text file in UTF-8") from None


def read_bytes(path: str | Path) -> bytes:
    """A file's content. Raises ConfigError stating why it cannot be read."""
    try:
        return path_of(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"path = '{shown(path)}' cannot be read ({error.strerror})") from None
