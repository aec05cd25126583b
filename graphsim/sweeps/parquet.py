"""Sweeps larger than memory: written to a folder of Parquet files in parts, and resumable after an interruption.

A part is a run of rows. Each is computed, encoded and written separately, by any free process, and moved into place
atomically; so memory holds a few parts at most, and existing parts are complete. `_sweep.json` records the request.
Parquet readers ignore names that begin with `_` or `.`: `pandas.read_parquet(folder)` gives the whole table.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.compile.packing import packed, unpacked
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.parameters.basis import basis
from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.deployment.kernels import table_of
from graphsim.errors import ConfigError, needs
from graphsim.files.present import path_of, shown
from graphsim.files.written import write_bytes, write_text
from graphsim.graph import Pass
from graphsim.lora.profile import load_profile
from graphsim.sweeps.digest import digest_of
from graphsim.sweeps.grid import Grid, Place, grid_of
from graphsim.sweeps.sweep import Progress, frame_of
from graphsim.sweeps.workers import Workers, done_by
from graphsim.units import checked_number, short

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

CHUNK_ROWS = 2**18
"""Rows of a part: some 40 MB while it is computed, some 6 MB on disk."""

MANIFEST = "_sweep.json"


def sweep_to_parquet(
    path: str | Path,
    models: ModelRef | Deployment | Sequence[ModelRef | Deployment],
    hardware: HardwareRef | Sequence[HardwareRef] | None = None,
    *,
    chunk_rows: int = CHUNK_ROWS,
    executor: Workers | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    zipped: Sequence[Sequence[str]] = (),
    passes: Sequence[Pass] = (),
    **choices: Any,
) -> Path:
    """Write a `sweep` to the folder `path`, one Parquet file per `chunk_rows` rows at most; returns the folder.

    models, hardware, zipped, passes, choices: as in `sweep`, with the same rows and columns in the same order
    chunk_rows: rows per file at most; memory use does not grow with the total number of rows
    executor: any `concurrent.futures.Executor`, or a function that creates one. Parts that a broken executor loses go
        to a new one if there is such a function, and are otherwise done in this process
    resume: continue an interrupted sweep in this folder, if it is the same sweep, with its original rows per file
    progress: called with rows done, earlier ones included, and rows in total
    Needs pyarrow (extra `parquet`). Raises ConfigError for a folder that holds anything else, or another sweep.
    """
    _need_pyarrow()
    if not (executor is None or isinstance(executor, Executor) or callable(executor)):
        raise ConfigError(
            f"executor = {short(executor)} is neither a concurrent.futures.Executor nor a function that creates one"
        )
    chunk_rows = checked_number("chunk_rows", chunk_rows, 1, one=True)
    grid = grid_of(models, hardware, choices, zipped, passes)
    folder = path_of(path)
    chunk_rows = _claim(folder, grid, chunk_rows, resume)
    sent = grid if executor is None else packed(grid, "sweep")
    done = 0
    todo = []
    for number, place in enumerate(grid.blocks(chunk_rows)):
        part = _RowFile(grid=sent, place=place, file=f"part-{number:07}.parquet")
        if _is_whole(folder / part.file, grid.sub(place).rows):
            done += grid.sub(place).rows
        else:
            todo.append(part)
    if progress and done:
        progress(done, grid.rows)
    for part, content in done_by(executor, encode, todo):
        write_bytes(folder / part.file, content)
        done += grid.sub(part.place).rows
        if progress:
            progress(done, grid.rows)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowFile:
    """Some rows of a grid that any process can compute; the grid is the same bytes for all, or itself here."""

    grid: bytes | Grid
    place: Place
    file: str


def encode(part: _RowFile) -> bytes:
    """The part's rows as a Parquet file."""
    from pyarrow import parquet

    grid = _grid(part.grid) if isinstance(part.grid, bytes) else part.grid
    file = io.BytesIO()
    parquet.write_table(_arrow(frame_of(grid.sub(part.place))), file, write_page_checksum=True)
    return file.getvalue()


@lru_cache(maxsize=4)
def _grid(pickled: bytes) -> Grid:
    """The same objects for every part, so that their formulas are recorded once per process."""
    grid: Grid = unpacked(pickled, "sweep")
    return grid


def _arrow(frame: pd.DataFrame) -> pyarrow.Table:
    """The table in types that do not depend on its rows: names are dictionary-encoded texts, even if all are
    missing.
    """
    import pyarrow

    columns = {}
    for name, column in frame.items():
        if column.dtype == "category":
            codes = column.cat.codes.to_numpy().astype(np.int32)
            texts = pyarrow.array([str(text) for text in column.cat.categories], pyarrow.string())
            columns[str(name)] = pyarrow.DictionaryArray.from_arrays(pyarrow.array(codes, mask=codes < 0), texts)
        else:
            columns[str(name)] = pyarrow.array(column.to_numpy())
    return pyarrow.table(columns)


def _is_whole(file: Path, rows: int) -> bool:
    """Whether a part of an earlier run exists and can be read completely; otherwise it is computed again."""
    import pyarrow
    from pyarrow import parquet

    if not file.is_file():
        return False
    try:
        return bool(parquet.read_table(file, page_checksum_verification=True).num_rows == rows)
    except (pyarrow.ArrowException, OSError):
        return False


def _claim(folder: Path, grid: Grid, chunk_rows: int, resume: bool) -> int:
    """Create the folder, or check that the same sweep created it; returns the rows per part.

    Raises ConfigError for a folder of anything else.
    """
    asked = {"sweep": request_hash(grid), "rows": grid.rows}
    manifest = folder / MANIFEST
    try:
        folder.mkdir(exist_ok=True)
        there = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else None
        torn = f".{Path(MANIFEST).stem}."  # prefix of a manifest's name while it is written
        foreign = there is None and any(not entry.name.startswith(torn) for entry in folder.iterdir())
    except OSError as error:
        raise ConfigError(f"sweep: the folder '{shown(folder)}' cannot be used ({error.strerror})") from None
    except ValueError:
        raise ConfigError(f"sweep: '{manifest}' is not what a sweep wrote; give another folder") from None
    if foreign:
        raise ConfigError(f"sweep: the folder '{folder}' holds other files; give one that is new or empty")
    if there is None:
        text = json.dumps(asked | {"chunk_rows": chunk_rows}, indent=1) + "\n"
        write_text(manifest, text)
        return chunk_rows
    if not isinstance(there, dict) or not isinstance(there.get("chunk_rows"), int):
        raise ConfigError(f"sweep: '{manifest}' is not what a sweep wrote; give another folder")
    if not resume:
        raise ConfigError(f"sweep: the folder '{folder}' holds a sweep already; resume it, or give another folder")
    if {name: there.get(name) for name in asked} != asked:
        raise ConfigError(
            f"sweep: the folder '{folder}' holds another sweep (of {there.get('rows')} rows, asked for {grid.rows}, "
            "or other choices, models, devices, constants or version); give another folder"
        )
    return int(there["chunk_rows"])


def request_hash(grid: Grid) -> str:
    """A digest of everything that the rows depend on: choices, models, devices, engines, fitted constants, version."""
    engines = [load_profile(name) for name in _column(grid, "engine")]
    costs = set(_column(grid, "cost"))
    fitted: list[Any] = []
    if costs - {"roofline"}:
        devices = _column(grid, "hardware")
        tables = {table_of(engine, device) for engine in (None, *engines) for device in devices}
        fitted = [
            basis(device, family, table)
            for device in devices
            for table in sorted(tables, key=repr)
            for family in FAMILIES
        ]
    return digest_of(grid, fitted, engines)


def _column(grid: Grid, name: str) -> list[Any]:
    return [value for axis in grid.axes for value in axis.columns.get(name, ())]


def _need_pyarrow() -> None:
    """Raise ConfigError if Parquet files cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise needs("pyarrow", "parquet", "a sweep to Parquet") from None
