"""Sweeps larger than memory: straight to a folder of Parquet files, in parts, to be gone on with after a break.

A part is a run of rows. Each is worked out, encoded and written on its own, by whichever process is free, and put in
place whole; so memory holds a few parts at most, and what is there is finished. `_sweep.json` says what was asked for.
Names that begin with `_` or `.` are no data to Parquet readers: `pandas.read_parquet(folder)` gives the whole table.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.compile.packing import packed, unpacked
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.parameters.basis import basis
from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.deployment.kernels import table_of
from graphsim.errors import ConfigError
from graphsim.graph import Pass
from graphsim.lora.profile import load_profile
from graphsim.sweeps.grid import Grid, Place, grid_of
from graphsim.sweeps.sweep import Progress, frame_of
from graphsim.units import checked_number, short

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

CHUNK_ROWS = 2**18
"""Rows of a part: some 40 MB while it is worked out, some 6 MB on disk."""

AT_ONCE = 32
"""Parts given out and not yet written."""

MANIFEST = "_sweep.json"

Workers = Executor | Callable[[], Executor]
"""An executor, or a function that makes one: that can be done again when one breaks."""


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
    """`sweep` into the folder `path`, one Parquet file for every `chunk_rows` rows at most; gives the folder back.

    Rows, columns and choices are those of `sweep`, in the same order; memory does not grow with the rows.
    executor: any `concurrent.futures.Executor`, or a function that makes one. Parts that a broken one loses are given
        to a new one where there is such a function, and else done here
    resume: go on with what is there, if it is the same sweep, with the rows per part that it began with
    progress: called with rows done and rows in all, those from before included
    Needs pyarrow (extra `parquet`). Raises ConfigError for a folder that holds anything else, or another sweep.
    """
    _need_pyarrow()
    if not (executor is None or isinstance(executor, Executor) or callable(executor)):
        raise ConfigError(f"executor = {short(executor)} is neither a concurrent.futures.Executor nor makes one")
    chunk_rows = checked_number("chunk_rows", chunk_rows, 1, one=True)
    grid = grid_of(models, hardware, choices, zipped, passes)
    folder = Path(path)
    chunk_rows = _claim(folder, grid, chunk_rows, resume)
    sent = grid if executor is None else packed(grid, "sweep")
    done = 0
    todo = []
    for number, place in enumerate(grid.blocks(chunk_rows)):
        part = _RowFile(grid=sent, place=place, file=f"part-{number:07}.parquet")
        if (folder / part.file).exists():
            done += grid.sub(place).rows
        else:
            todo.append(part)
    if progress and done:
        progress(done, grid.rows)
    for part, content in _encoded(todo, executor):
        _put(folder / part.file, content)
        done += grid.sub(part.place).rows
        if progress:
            progress(done, grid.rows)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowFile:
    """Some rows of a grid that any process can work out; the grid is the same bytes for all, or itself here."""

    grid: bytes | Grid
    place: Place
    file: str


def encode(part: _RowFile) -> bytes:
    """The part's rows as a Parquet file."""
    from pyarrow import parquet

    grid = _grid(part.grid) if isinstance(part.grid, bytes) else part.grid
    file = io.BytesIO()
    parquet.write_table(_arrow(frame_of(grid.sub(part.place))), file)
    return file.getvalue()


@lru_cache(maxsize=4)
def _grid(pickled: bytes) -> Grid:
    """The same objects for every part, so that their formulas are recorded once in a process."""
    grid: Grid = unpacked(pickled, "sweep")
    return grid


def _arrow(frame: pd.DataFrame) -> pyarrow.Table:
    """The table in types that do not hang on its rows: names are texts by number, even where there is none."""
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


def _encoded(todo: Sequence[_RowFile], workers: Workers | None) -> Iterator[tuple[_RowFile, bytes]]:
    """Every part with its content, in the order in which they are finished."""
    if isinstance(workers, Executor):
        left = yield from _by(workers, todo)
    elif workers is not None:
        left, before = list(todo), len(todo) + 1
        while left and len(left) < before:  # as long as a new executor gets further than the last one
            before = len(left)
            pool = workers()
            try:
                left = yield from _by(pool, left)
            finally:
                pool.shutdown(cancel_futures=True)
    else:
        left = list(todo)
    for part in left:
        yield part, encode(part)


def _by(executor: Executor, todo: Sequence[_RowFile]) -> Generator[tuple[_RowFile, bytes], None, list[_RowFile]]:
    """What an executor gets done; returns the parts that it lost."""
    waiting, running = list(reversed(todo)), dict[Future[bytes], _RowFile]()
    lost = list[_RowFile]()
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                part = waiting.pop()
                try:
                    running[executor.submit(encode, part)] = part
                except RuntimeError:  # a broken pool, or one that was shut down, takes nothing more
                    lost += [part, *reversed(waiting)]
                    waiting.clear()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                part = running.pop(future)
                if future.cancelled() or future.exception() is not None:
                    lost.append(part)
                else:
                    yield part, future.result()
    finally:
        for future in running:
            future.cancel()
    return lost


def _put(file: Path, content: bytes) -> None:
    """Write a file so that it is there either whole or not at all, whatever happens meanwhile."""
    rough = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with rough.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        rough.replace(file)
    except OSError as error:
        raise ConfigError(f"sweep: '{file}' cannot be written ({error.strerror})") from None


def _claim(folder: Path, grid: Grid, chunk_rows: int, resume: bool) -> int:
    """Make the folder, or find it made by the same sweep; gives the rows per part.

    Raises ConfigError for a folder of anything else.
    """
    asked = {"sweep": request_hash(grid), "rows": grid.rows}
    manifest = folder / MANIFEST
    try:
        folder.mkdir(exist_ok=True)
        there = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else None
        foreign = there is None and any(not entry.name.startswith(f".{MANIFEST}") for entry in folder.iterdir())
    except OSError as error:
        raise ConfigError(f"sweep: the folder '{folder}' cannot be used ({error.strerror})") from None
    except ValueError:
        raise ConfigError(f"sweep: '{manifest}' is not what a sweep wrote; give another folder") from None
    if foreign:
        raise ConfigError(f"sweep: the folder '{folder}' holds other files; give one that is new or empty")
    if there is None:
        text = json.dumps(asked | {"chunk_rows": chunk_rows}, indent=1) + "\n"
        _put(manifest, text.encode("utf-8"))
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
    """A digest of all that the rows hang on: choices, models, devices, engines, fitted constants, version."""
    from graphsim import __version__

    digest = hashlib.sha256(__version__.encode())
    engines = [load_profile(name) for names, values in grid.axes for name in _column("engine", names, values)]
    costs = {cost for names, values in grid.axes for cost in _column("cost", names, values)}
    fitted: list[Any] = []
    if costs - {"roofline"}:
        devices = [device for names, values in grid.axes for device in _column("hardware", names, values)]
        tables = {table_of(engine, device) for engine in (None, *engines) for device in devices}
        fitted = [
            basis(device, family, table)
            for device in devices
            for table in sorted(tables, key=repr)
            for family in FAMILIES
        ]
    for text in _texts((grid, fitted, engines)):
        digest.update(text.encode("utf-8", "replace") + b"\0")
    return digest.hexdigest()


def _column(name: str, names: Sequence[str], values: Sequence[Sequence[Any]]) -> list[Any]:
    return [row[names.index(name)] for row in values] if name in names else []


def _texts(value: Any) -> Iterator[str]:
    """A value spelt out, the same in every process; places in the file system do not count."""
    if isinstance(value, Mapping):
        yield "mapping"
        for key, entry in value.items():
            yield str(key)
            yield from _texts(entry)
    elif isinstance(value, list | tuple | np.ndarray):
        yield f"{len(value)} entries"
        for entry in value:
            yield from _texts(entry)
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__qualname__
        for field in fields(value):
            yield from _texts(getattr(value, field.name))
    elif callable(value):
        yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    elif not isinstance(value, Path):
        yield repr(value.item() if isinstance(value, np.generic) else value)


def _need_pyarrow() -> None:
    """Raise ConfigError where Parquet files cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ConfigError(
            "a sweep to Parquet needs the package 'pyarrow'; install it with: pip install 'graphsim[parquet]'"
        ) from None
