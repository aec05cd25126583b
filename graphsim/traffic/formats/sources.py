"""Reading trace files: tables in chunks, JSON line by line; errors are reported in one sentence."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError, needs
from graphsim.traffic.formats.cells import Record
from graphsim.traffic.table import Ints
from graphsim.units import amount_text, short

if TYPE_CHECKING:
    import pandas as pd

CHUNK_ROWS = 500_000
MOST_REQUESTS = 50_000_000
MOST_LINE_BYTES = 2**29
"""Upper limit for the bytes of a JSON document: a benchmark's result with all answers may be one line."""


def check_file(path: Path) -> None:
    """Raise ConfigError unless the path is a regular, non-empty file."""
    try:
        exists, regular, size = path.exists(), path.is_file(), path.stat().st_size if path.exists() else 0
    except (OSError, ValueError) as error:
        raise ConfigError(f"{short(str(path))}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not exists:
        raise ConfigError(f"{path}: no such file")
    if not regular:
        raise ConfigError(f"{path}: is not a regular file")
    if not size:
        raise ConfigError(f"{path}: the file is empty")


def first_characters(path: Path) -> str:
    """The beginning of a file without leading white space. Raises ConfigError if it is not text."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if b"\0" in start:
        raise ConfigError(f"{path}: is not a text file, expected CSV or JSON")
    text = start.decode("utf-8-sig", errors="replace").lstrip()
    if not text and len(start) < 4096:
        raise ConfigError(f"{path}: the file is empty")
    return text


def header(path: Path) -> list[str]:
    """The columns of a CSV or Parquet file."""
    if path.suffix == ".parquet":
        return [str(name) for name in next(_parquet(path)).columns]
    return [str(name) for name in _guarded(path, nrows=0).columns]


def chunks(path: Path, columns: list[str], rows: float) -> Iterator[tuple[pd.DataFrame, Ints]]:
    """A table's rows in chunks, with the line of each (in Parquet the row); empty lines are left out.

    path: the file
    columns: columns to read
    rows: number of rows needed
    Raises ConfigError for a file that cannot be read or has more than MOST_REQUESTS rows.
    """
    read = 0
    for frame in _parquet(path) if path.suffix == ".parquet" else _csv(path):
        if read + len(frame) > MOST_REQUESTS and rows > MOST_REQUESTS:
            raise ConfigError(
                f"{path}: has more than {amount_text(MOST_REQUESTS)} requests; read a part of it by requests=…"
            )
        lines = np.arange(read, read + len(frame), dtype=np.int64) + (1 if path.suffix == ".parquet" else 2)
        read += len(frame)
        held = frame[columns].notna().any(axis=1).to_numpy()
        yield frame[columns][held], lines[held]
        if read >= rows:
            return


def _csv(path: Path) -> Iterator[pd.DataFrame]:
    reader = _guarded(path, chunksize=CHUNK_ROWS)
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                frame = next(reader)
        except StopIteration:
            return
        except (OSError, ValueError, OverflowError, MemoryError, Warning) as error:
            raise _unreadable(path, error) from None
        yield frame


def _guarded(path: Path, **options: Any) -> Any:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return pd.read_csv(
                path, encoding="utf-8-sig", skip_blank_lines=False, low_memory=False, index_col=False,
                keep_default_na=False, na_values=[""], **options,
            )  # fmt: skip
    except (OSError, ValueError, OverflowError, MemoryError, Warning) as error:
        raise _unreadable(path, error) from None


def _parquet(path: Path) -> Iterator[pd.DataFrame]:
    import pandas as pd

    try:
        yield pd.read_parquet(path)
    except ImportError:
        raise needs("pyarrow", "parquet", f"{path}: reading Parquet") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> ConfigError:
    return ConfigError(f"{path}: cannot be read as a trace ({' '.join(str(error).split())[:120]})")


def json_lines(path: Path, rows: float) -> Iterator[Record]:
    """The objects in a file with one JSON object per line. Raises ConfigError with the line of anything else."""
    try:
        with path.open("rb") as file:
            number = count = 0
            while count < rows:
                line = file.readline(MOST_LINE_BYTES + 1)
                number += 1
                if not line:
                    return
                if len(line) > MOST_LINE_BYTES:
                    raise ConfigError(f"{path}: line {number} has more than {amount_text(MOST_LINE_BYTES)} bytes")
                if not line.strip(b"\xef\xbb\xbf \t\r\n"):
                    continue
                if count >= MOST_REQUESTS:
                    raise ConfigError(
                        f"{path}: has more than {amount_text(MOST_REQUESTS)} requests; read a part of it by requests=…"
                    )
                count += 1
                yield Record(path, number, parsed(path, line.rstrip(), number))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def records(path: Path, rows: float) -> Iterator[Record]:
    """The objects in a JSON file: one per line, or a single one on several lines."""
    with_line = json_lines(path, 1)
    try:
        next(with_line)
    except ConfigError:
        yield _document(path)
        return
    except StopIteration:
        raise ConfigError(f"{path}: the file is empty") from None
    yield from json_lines(path, rows)


def _document(path: Path) -> Record:
    try:
        if path.stat().st_size > MOST_LINE_BYTES:
            raise ConfigError(f"{path}: has more than {amount_text(MOST_LINE_BYTES)} bytes in one JSON object")
        return Record(path, 1, parsed(path, path.read_bytes(), 1))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def parsed(path: Path, text: bytes, line: int) -> dict[str, Any]:
    """The JSON object in a text. Raises ConfigError with line numbers counted from `line`."""
    try:
        data = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        at = line + text.count(b"\n", 0, error.start)
        raise ConfigError(f"{path}: line {at}: is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        at = line + error.lineno - 1
        raise ConfigError(f"{path}: line {at}, column {error.colno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"{path}: line {line}: cannot be parsed ({type(error).__name__}: {str(error)[:80]})"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: line {line}: holds {short(data)}, expected a JSON object")
    return data
