"""Paths of the files that commands write: checked before anything is computed, and reported once they are written."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from graphsim.display.axes import PICTURES as PICTURES
from graphsim.files.present import expanded, is_file, is_folder, is_present, shown

PAGE = (".html", ".htm")
GRAPH = (".dot", ".gv")
JSON = (".json",)
_OF_FILES = (
    *PAGE, *GRAPH, *JSON, *PICTURES, ".csv", ".tsv", ".xlsx", ".parquet", ".feather", ".jsonl", ".yaml", ".yml",
    ".txt", ".md", ".gz", ".zip",
)  # fmt: skip
"""Suffixes by which a name is that of a file."""


@dataclass(frozen=True, slots=True)
class OutFile:
    """The path of a file to write; the `type` of an argparse option.

    suffixes: allowed suffixes in small letters; () for any
    A pipe or device, such as /dev/stdout, needs no suffix.
    """

    suffixes: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        """The path, with `~` replaced."""
        path = expanded(text)
        if not text or text == "-":
            raise _unwritable(text, "that is not a file's name; the standard output is /dev/stdout")
        if is_folder(path):
            raise _unwritable(text, "that is a folder; expected a file")
        if is_present(path) and not is_file(path):
            return str(path)
        if self.suffixes and path.suffix.lower() not in self.suffixes:
            found = f"its suffix is '{path.suffix}'" if path.suffix else "it has no suffix"
            raise _unwritable(text, f"{found}; allowed: {', '.join(self.suffixes)}")
        if not is_folder(path.parent):
            raise _unwritable(text, f"there is no folder '{shown(path.parent)}'")
        return str(path)


@dataclass(frozen=True, slots=True)
class OutFolder:
    """The path of a folder to write; the `type` of an argparse option.

    content: what is written into it
    instead: the option that writes one file, such as `--to`; "" if there is none
    named: suffixes that a folder's name may have
    """

    content: str
    instead: str = ""
    named: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        """The path, with `~` replaced."""
        path = expanded(text)
        hint = f"; {self.instead} {text} writes one file" if self.instead else ""
        if not text or text == "-":
            raise _unwritable(text, f"that is not a folder's name; expected a folder for {self.content}")
        if is_present(path) and not is_folder(path):
            raise _unwritable(text, f"that is a file; expected a folder for {self.content}{hint}")
        if path.suffix.lower() in _OF_FILES and path.suffix.lower() not in self.named and not is_folder(path):
            raise _unwritable(text, f"that is a file's name; expected a folder for {self.content}{hint}")
        return str(path)


def _unwritable(text: str, reason: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"'{shown(text)}' cannot be written: {reason}")


def report_written(options: argparse.Namespace, paths: Iterable[str | Path | None]) -> None:
    """Have written files reported when the command ends; not None, and not the standard output itself."""
    options.written += [f"wrote {path}\n" for path in paths if path is not None and not _is_standard_output(path)]


def _is_standard_output(path: str | Path) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))  # noqa: PTH116 - beside that of a descriptor
    except OSError:
        return False
