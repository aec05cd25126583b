"""Results of a fleet search, kept in a file with one line each, so that an interruption loses nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from graphsim.errors import ConfigError
from graphsim.files.present import is_present, path_of
from graphsim.result import plain
from graphsim.serving.fleet.size_job import Bound, SizeResult


class Kept:
    """Bounds and results by choice; without a path, in memory only.

    A result counts for as many replicas at most as it was searched with.
    """

    def __init__(self, path: str | Path | None, digest: str, choices: int) -> None:
        """Continue a file of the same question. Raises ConfigError for any other file."""
        self.bounds: dict[int, Bound] = {}
        self.sized: dict[tuple[int, str], SizeResult] = {}
        self._file: TextIO | None = None
        if path is None:
            return
        self._path = path_of(path, "size_fleet: resume")
        asked = {"size_fleet": digest, "choices": choices}
        try:
            lines = self._path.read_text(encoding="utf-8").split("\n") if is_present(self._path) else []
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"size_fleet: '{path}' cannot be read ({error})") from None
        whole = lines[:-1]  # a line cut short by an interruption has no end
        if lines and self._of(whole[0] if whole else lines[0]) != asked:
            raise ConfigError(
                f"size_fleet: '{path}' does not hold results of this question (other choices, traffic, limits or "
                "version); give another file"
            )
        for line in whole[1:]:
            self._take(line)
        self._open(asked, whole)

    def _of(self, line: str) -> Any:
        try:
            return json.loads(line)
        except ValueError:
            return None

    def _take(self, line: str) -> None:
        entry = self._of(line)
        if not isinstance(entry, dict):
            raise ConfigError(f"size_fleet: '{self._path}' holds a line that is not a result: {line[:40]!r}")
        if "bound" in entry:
            bound = Bound(**entry["bound"])
            self.bounds[bound.number] = bound
        elif "sized" in entry:
            told = entry["sized"]
            told["attainment"] = float("nan") if told["attainment"] is None else told["attainment"]
            found = SizeResult(**told)
            self.sized[found.number, entry["most"]] = found

    def _open(self, asked: dict[str, Any], whole: list[str]) -> None:
        """Rewrite the known results, so that a torn last line is removed, and append after them."""
        from graphsim.files.written import write_text

        write_text(self._path, "\n".join(whole or [json.dumps(asked)]) + "\n")
        try:
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"size_fleet: '{self._path}' cannot be written to ({error.strerror})") from None

    def bound(self, found: Bound) -> None:
        """Keep it."""
        self.bounds[found.number] = found
        self._write({"bound": asdict(found)})

    def size(self, found: SizeResult, most: str) -> None:
        """Keep it.

        most: replicas at most with which it was searched
        """
        self.sized[found.number, most] = found
        self._write({"sized": asdict(found), "most": most})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(plain(entry), allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
