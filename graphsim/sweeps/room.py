"""Whether a table will fit in memory, checked before it is computed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from graphsim.errors import ConfigError
from graphsim.units import bytes_text

CELL_BYTES = 8
"""Bytes of a number in a table."""


def require_room(rows: int, columns: int, instead: str) -> None:
    """Raise ConfigError if a table of numbers takes more memory than is free.

    instead: advice for the message
    """
    takes, free = rows * columns * CELL_BYTES, free_bytes()
    if free is not None and takes > free:
        raise ConfigError(
            f"a table of {rows} rows and {columns} columns takes {bytes_text(takes)}, and {bytes_text(free)} of memory "
            f"are free; {instead}"
        )


def free_bytes() -> int | None:
    """Memory that a process may still take, of the machine's and of its control group's; None where unknown."""
    known = [size for size in (_machine_bytes(), _group_bytes()) if size is not None]
    return min(known, default=None)


def _machine_bytes() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        return found[0]
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _group_bytes() -> int | None:
    """Free memory under a container's limit, by control groups of version 2."""
    folder = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        most = int((folder / "memory.max").read_text(encoding="ascii"))
        stats = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        given_back = sum(int(line.split()[1]) for line in stats if line.startswith("inactive_file "))
        return most - int((folder / "memory.current").read_text(encoding="ascii")) + given_back
    return None
