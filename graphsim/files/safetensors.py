"""Headers of safetensors files, and the index of a checkpoint in several of them.

A file starts with the header's length in 8 bytes, little endian; the header is JSON: each tensor's `dtype`, `shape` and
`data_offsets`, and `__metadata__` (https://github.com/huggingface/safetensors, "Format", version 0.8). The weights
after it are never read and may be missing: a file truncated after its header suffices.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.tensors import StoredTensor, StoredTensors
from graphsim.units import amount_text, bounds_text, short

MAX_HEADER_BYTES = 100 * 10**6
"""The header size limit of the format's own reader (safetensors 0.8, `MAX_HEADER_SIZE`)."""

MAX_FILES = 2_000
"""Upper limit for the number of files of a checkpoint."""

INDEX = "model.safetensors.index.json"

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits per element by data type (safetensors 0.8, `Dtype`)."""


_POINTER = b"version "
"""The beginning of a Git LFS pointer file (specification version 1)."""


def read_header(path: Path) -> Mapping[str, Any]:
    """The header of one file without `__metadata__`. Raises ConfigError if the file has no valid header."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(length) if 2 <= length <= MAX_HEADER_BYTES else b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    if start == _POINTER:
        raise ConfigError(f"{path}: is a Git LFS pointer instead of the file; run 'git lfs pull' to fetch it")
    if not start:
        raise ConfigError(f"{path}: the file is empty, expected a safetensors file")
    if not text:
        raise ConfigError(
            f"{path}: has a header of {amount_text(length)} bytes, expected a length {bounds_text(2, MAX_HEADER_BYTES)}"
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: its header is not JSON, expected a safetensors file") from None
    if not isinstance(header, dict):
        raise ConfigError(f"{path}: its header is a {type(header).__name__}, expected a mapping of tensors")
    header.pop("__metadata__", None)
    return header


def read_shape(path: Path, key: str, entry: Any) -> tuple[list[int], Any]:
    """The shape and `dtype` of a tensor in a header. Raises ConfigError if the shape is invalid."""
    shape, dtype = (entry.get(name) if isinstance(entry, Mapping) else None for name in ("shape", "dtype"))
    if not (isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)):
        raise ConfigError(f"{path}: tensor {short(key)} has shape {short(shape)}, expected whole numbers")
    return shape, dtype


def read_file(path: Path) -> dict[str, StoredTensor]:
    """All tensors of one file.

    Raises ConfigError naming a tensor whose data type, shape and offsets are inconsistent.
    """
    tensors: dict[str, StoredTensor] = {}
    seen: dict[Any, StoredTensor] = {}  # a model has few shapes, but may have ten thousands of experts
    for key, entry in read_header(path).items():
        try:
            start, end = entry["data_offsets"]
            tensors[key] = seen[entry["dtype"], *entry["shape"], end - start]
        except (KeyError, TypeError, ValueError):
            tensors[key] = tensor = _tensor(path, key, entry)
            seen[tensor.dtype, *(tensor.shape or ()), tensor.bytes] = tensor
    return tensors


def _tensor(path: Path, key: str, entry: Any) -> StoredTensor:
    shape, dtype = read_shape(path, key, entry)
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise ConfigError(f"{path}: tensor {short(key)} has dtype {short(dtype)}, allowed: {', '.join(BITS)}")
    place = entry.get("data_offsets")
    if not (isinstance(place, list) and len(place) == 2 and all(type(n) is int and n >= 0 for n in place)):
        raise ConfigError(f"{path}: tensor {short(key)} has data_offsets {short(place)}, expected two numbers from 0")
    size, found = math.prod(shape) * bits, place[1] - place[0]
    if found * 8 != size:
        raise ConfigError(f"{path}: tensor {short(key)} has {found} bytes, its shape and dtype need {size // 8}")
    return StoredTensor(dtype, tuple(shape), found)


def read_folder(folder: Path) -> StoredTensors | None:
    """The tensors of a model folder: from the headers of its files, else from the index only; None without either.

    If there is an index, it determines which files belong to the model; if some of them are missing, only the names in
    the index are used. Raises ConfigError naming the file and what is wrong with it.
    """
    index = folder / INDEX
    if index.is_file():
        names, total = _index(index)
        files = [folder / name for name in dict.fromkeys(names.values())]
        if not all(file.is_file() for file in files):
            tensors = {name: StoredTensor() for name in names}
            return StoredTensors(source=str(index), tensors=tensors, total_bytes=total, complete=False)
        found = _read(folder, files)
        _fail_if_unlike(index, names, found)
        return found
    files = weight_files(folder)
    return _read(folder, files) if files else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder without an index: `model.safetensors` if it exists, else all model files.

    Adapters are left out, and so is `consolidated.safetensors` next to others, since it contains the same weights.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    return [path for path in files if not path.name.startswith("consolidated")] or files


def _read(folder: Path, files: Iterable[Path]) -> StoredTensors:
    tensors: dict[str, StoredTensor] = {}
    files = list(files)
    if len(files) > MAX_FILES:
        raise ConfigError(
            f"{folder}: holds {amount_text(len(files))} safetensors files, allowed: at most {amount_text(MAX_FILES)}"
        )
    for file in files:
        own = read_file(file)
        twice = next((name for name in own if name in tensors), None)
        if twice is not None:
            raise ConfigError(f"{file}: tensor {short(twice)} is in another file of the folder as well")
        tensors |= own
    total = sum(tensor.bytes for tensor in tensors.values())
    return StoredTensors(source=str(folder), tensors=tensors, total_bytes=total)


def _index(path: Path) -> tuple[dict[str, str], int]:
    """The file of each tensor, and the total number of bytes; 0 if the index does not state it."""
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_HEADER_BYTES else ""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError:
        raise ConfigError(f"{path}: is not text, expected the index of a checkpoint") from None
    if size > MAX_HEADER_BYTES:
        raise ConfigError(f"{path}: has {amount_text(size)} bytes, allowed: at most {amount_text(MAX_HEADER_BYTES)}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: is not JSON, expected the index of a checkpoint") from None
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not (isinstance(names, dict) and names and all(_is_file_name(file) for file in names.values())):
        raise ConfigError(f"{path}: weight_map = {short(names)} is not allowed; expected the file of each tensor")
    metadata = data.get("metadata")
    total = metadata.get("total_size", 0) if isinstance(metadata, dict) else 0
    if isinstance(total, bool) or not isinstance(total, int | float) or not 0 <= total < 10**16:
        raise ConfigError(f"{path}: metadata.total_size = {short(total)} is not allowed; expected a number of bytes")
    return names, int(total)


def _is_file_name(file: Any) -> bool:
    return isinstance(file, str) and 0 < len(file) < 256 and Path(file).name == file and "\0" not in file


def _fail_if_unlike(index: Path, names: Mapping[str, str], found: StoredTensors) -> None:
    for ours, theirs, text in ((names, found.tensors, "no file holds"), (found.tensors, names, "it does not list")):
        lost = [name for name in ours if name not in theirs]
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise ConfigError(f"{index}: {text} tensor {short(lost[0])}{more}")
