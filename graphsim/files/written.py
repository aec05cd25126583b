"""Files that graphsim writes, whole or not at all, and reads back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from graphsim.errors import ConfigError


def write_text(path: str | Path, text: str) -> Path:
    """Write a file as UTF-8. Raises ConfigError saying why it cannot be written."""
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file; what was there stays until the new one is whole. Raises ConfigError saying why it cannot be."""
    return _write(path, [content])


def write_lines(path: str | Path, lines: Iterable[str]) -> Path:
    """Write lines one at a time, without holding them all in memory; the file is complete or not written at all."""
    return _write(path, (line.encode("utf-8", errors="replace") + b"\n" for line in lines))


def _write(path: str | Path, parts: Iterable[bytes]) -> Path:
    target = Path(path)
    try:
        if target.exists() and not target.is_file():  # a directory, or a pipe, which is written as it is
            with target.open("wb") as there:
                there.writelines(parts)
            return target
        kept = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as new:
            made = Path(new.name)
            try:
                new.writelines(parts)
            except BaseException:
                made.unlink(missing_ok=True)
                raise
        try:
            made.chmod(kept)
            made.replace(target)
        except OSError:
            made.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"path = '{target}' cannot be written to ({error.strerror})") from None
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_text(path: str | Path) -> str:
    """A file's text. Raises ConfigError saying why it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"path = '{path}' cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, ValueError):
        raise ConfigError(f"path = '{path}' is not a text file in UTF-8") from None


def read_bytes(path: str | Path) -> bytes:
    """A file's content. Raises ConfigError saying why it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"path = '{path}' cannot be read ({error.strerror})") from None
