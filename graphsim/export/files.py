"""Writing what an exporter made."""

from __future__ import annotations

from pathlib import Path

from graphsim.errors import ConfigError


def write_text(path: str | Path, text: str) -> Path:
    """Write a file as UTF-8. Raises ConfigError saying why it cannot be written."""
    target = Path(path)
    try:
        target.write_bytes(text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise ConfigError(f"path = '{target}' cannot be written to ({error.strerror})") from None
    return target


def needs(package: str, extra: str) -> ConfigError:
    """The error for an optional package that is not installed."""
    return ConfigError(f"this needs the package '{package}'; install it with: pip install 'graphsim[{extra}]'")
