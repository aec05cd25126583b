"""Writing what an exporter made, and reading it back."""

from __future__ import annotations

from pathlib import Path

from graphsim.errors import ConfigError


def write_text(path: str | Path, text: str) -> Path:
    """Write a file as UTF-8. Raises ConfigError saying why it cannot be written."""
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file. Raises ConfigError saying why it cannot be written."""
    target = Path(path)
    try:
        target.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"path = '{target}' cannot be written to ({error.strerror})") from None
    return target


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


def needs(package: str, extra: str) -> ConfigError:
    """The error for an optional package that is not installed."""
    return ConfigError(f"this needs the package '{package}'; install it with: pip install 'graphsim[{extra}]'")
