"""Output of tables and JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from graphsim.result import plain


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_line(text: str = "") -> None:
    """Print one line; characters that cannot be encoded are replaced, since names may contain any."""
    sys.stdout.write(text.encode("utf-8", errors="replace").decode() + "\n")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print aligned columns under a header; the columns listed in `right` are right-aligned."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    for number, line in enumerate([header, ["-" * width for width in widths], *rows]):
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text = "  ".join(cells).rstrip()
        print_line(_styled(text, _BOLD if number == 0 else _FAINT) if number < 2 else text)


def print_cautions(frame: Any) -> None:
    """Print the caveats on a table's times, without duplicates."""
    for caution in dict.fromkeys(frame["caution"]):
        if caution:
            print_line(f"note: {caution}")


_BOLD, _FAINT = "1", "2"


def _styled(text: str, style: str) -> str:
    """Text in an ANSI style on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not text:
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


class Progress:
    """A one-line progress display: rows done, total, rate and remaining time; silent unless on a terminal."""

    PAUSE_S = 0.1

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._drawn_s = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Update the line, at most as often as is readable."""
        now_s = time.monotonic()
        began_s, before = self._first = self._first or (now_s, done)
        if not sys.stderr.isatty() or (done < total and now_s - self._drawn_s < self.PAUSE_S):
            return
        self._drawn_s = now_s
        rate = (done - before) / (now_s - began_s) if now_s > began_s else 0.0
        speed = f", {rate:,.0f}/s" if rate else ""
        left = f", {(total - done) / rate:,.0f} s left" if rate and done < total else ""
        text = f"{done:,} of {total:,} scenarios ({done / total:.0%}{speed}{left})"
        sys.stderr.write(f"\r{text:<78}" + ("\n" if done == total else ""))
        sys.stderr.flush()


class RunProgress:
    """A one-line display of a simulation's progress, cleared at the end; silent unless on a terminal.

    requests: total number of requests
    """

    def __init__(self, requests: int) -> None:
        self._requests, self._began_s, self._drawn = requests, time.monotonic(), False

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Print an empty line."""
        if self._drawn:
            sys.stderr.write(f"\r{'':<78}\r")
            sys.stderr.flush()

    def simulated(self, seconds: float, ended: int) -> None:
        """Show the simulated seconds and the number of finished requests."""
        passed = max(time.monotonic() - self._began_s, 1e-3)
        share = f" of {self._requests:,} ({ended / max(self._requests, 1):.0%})"
        self._draw(f"{seconds:,.0f} s simulated, {ended:,}{share} requests, {seconds / passed:,.0f} x real time")

    def choosing(self, done: int, what: str) -> None:
        """Show how many choices have been evaluated, and the current one."""
        self._draw(what)

    def trying(self, done: int, what: str) -> None:
        """Show the number of completed runs, and the current one."""
        self._draw(f"{done} runs; {what}")

    def _draw(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text[:78]:<78}")
            sys.stderr.flush()
            self._drawn = True
