"""Headers of GGUF files: metadata, and the name, shape and type of each tensor; the weights are never read.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, in either byte order. The
`gguf` package is not used because it maps the whole file and stores every token of the vocabulary as a separate array,
which takes seconds.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from graphsim.errors import ConfigError
from graphsim.files.ggml import TYPES
from graphsim.files.tensors import StoredTensor, StoredTensors
from graphsim.units import amount_text, short

MOST_ENTRIES, MOST_TENSORS, MOST_STRINGS = 10_000, 1_000_000, 4_000_000
"""Upper limits for metadata entries, tensors, and strings in arrays."""

MOST_TEXT = 16 * 2**20
"""Upper limit for the bytes of a text; chat templates are the longest."""

MOST_KEPT = 4_096
"""Arrays up to this length are kept (per-layer values); of longer ones (vocabularies), only the length."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class Long(NamedTuple):
    """An array that is too long to be kept."""

    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """Contents of the header of a GGUF file, or of all its parts. Shapes are in PyTorch's order."""

    metadata: Mapping[str, Any]
    stored: StoredTensors


def read_gguf(path: Path) -> GgufFile:
    """The metadata and tensors of a GGUF file; for a split file, of all its parts.

    Raises ConfigError naming the file and what is wrong with it, or the missing part.
    """
    parts = _parts(path)
    files = [_read(part) for part in parts]
    tensors: dict[str, StoredTensor] = {}
    for part, (_, own) in zip(parts, files, strict=True):
        twice = next((name for name in own if name in tensors), None)
        if twice is not None:
            raise ConfigError(f"{part}: tensor {short(twice)} is in another part as well")
        tensors |= own
    total = sum(tensor.bytes for tensor in tensors.values())
    return GgufFile(metadata=files[0][0], stored=StoredTensors(source=str(path), tensors=tensors, total_bytes=total))


def _parts(path: Path) -> list[Path]:
    """All files of a split model, the first one first."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    if not 1 <= count <= 1_000:
        raise ConfigError(f"{path}: is one of {count} parts, allowed: 1 to 1000")
    names = [f"{found['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(f"{path}: is one of {count} parts, and the folder lacks {missing[0]}{more}")
    return [path.with_name(name) for name in names]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(path, data).read()
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


class _Header:
    """One file's header, read from its start to the end of its list of tensors."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at, self.strings = path, data, 0, 0
        self.order = "<"

    def read(self) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
        """Metadata and tensors."""
        if self.data[:4] != b"GGUF":
            raise ConfigError(f"{self.path}: does not begin with GGUF, expected a GGUF file")
        self.at = 4
        version = self._number("I")
        if version and not version & 0xFFFF:  # written in the other byte order
            self.order, self.at = ">", 4
            version = self._number("I")
        if version not in (2, 3):
            raise ConfigError(f"{self.path}: is GGUF version {version}, allowed: 2, 3")
        tensors, entries = self._number("Q"), self._number("Q")
        if tensors > MOST_TENSORS or entries > MOST_ENTRIES:
            raise ConfigError(
                f"{self.path}: states {amount_text(tensors)} tensors and {amount_text(entries)} entries of metadata, "
                f"allowed: at most {amount_text(MOST_TENSORS)} and {amount_text(MOST_ENTRIES)}"
            )
        metadata = {self._text(): self._value() for _ in range(entries)}
        return metadata, dict(self._tensor() for _ in range(tensors))

    def _number(self, code: str) -> Any:
        size = struct.calcsize(self.order + code)
        if self.at + size > len(self.data):
            raise ConfigError(f"{self.path}: ends within its header, after {len(self.data)} bytes")
        self.at += size
        return struct.unpack_from(self.order + code, self.data, self.at - size)[0]

    def _text(self, most: int = 65_535) -> str:
        length = self._number("Q")
        if length > most or self.at + length > len(self.data):
            raise ConfigError(
                f"{self.path}: has a text of {amount_text(length)} bytes at {self.at}, which exceeds the file or "
                f"the limit of {amount_text(most)} bytes"
            )
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", "replace")

    def _value(self) -> Any:
        kind = self._number("I")
        if kind == _STRING:
            return self._text(most=MOST_TEXT)
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise ConfigError(f"{self.path}: has metadata of type {kind}, allowed: 0 to 12")
        return self._number(_SCALARS[kind])

    def _array(self) -> Any:
        kind, length = self._number("I"), self._number("Q")
        if kind == _STRING:
            return self._skip_strings(length)
        if kind not in _SCALARS:
            raise ConfigError(f"{self.path}: has an array of type {kind}, allowed: 0 to 8 and 10 to 12")
        size = struct.calcsize(self.order + _SCALARS[kind])
        if self.at + length * size > len(self.data):
            raise ConfigError(f"{self.path}: has an array of {length} entries at {self.at}, beyond its end")
        self.at += length * size
        if length > MOST_KEPT:
            return Long(length)
        return list(struct.unpack_from(f"{self.order}{length}{_SCALARS[kind]}", self.data, self.at - length * size))

    def _skip_strings(self, length: int) -> Long:
        self.strings += length
        data, at, end = self.data, self.at, len(self.data)
        if self.strings > MOST_STRINGS or at + 8 * length > end:
            raise ConfigError(
                f"{self.path}: has {amount_text(self.strings)} texts in arrays, beyond its end or "
                f"{amount_text(MOST_STRINGS)}"
            )
        unpack = struct.Struct(f"{self.order}Q").unpack_from
        for _ in range(length):
            if at + 8 > end:
                break
            at += 8 + unpack(data, at)[0]
        if at > end:
            raise ConfigError(f"{self.path}: has a text beyond its end")
        self.at = at
        return Long(length)

    def _tensor(self) -> tuple[str, StoredTensor]:
        name, dims = self._text(), self._number("I")
        if not 1 <= dims <= 8:
            raise ConfigError(f"{self.path}: tensor {short(name)} has {dims} dimensions, allowed: 1 to 8")
        shape = tuple(self._number("Q") for _ in range(dims))
        number, _ = self._number("I"), self._number("Q")
        kind = TYPES.get(number)
        if kind is None:
            allowed = ", ".join(f"{i} ({known.name})" for i, known in TYPES.items())
            raise ConfigError(f"{self.path}: tensor {short(name)} has type {number}, allowed: {allowed}")
        if shape[0] % kind.weights or math.prod(shape) > 2**50:
            raise ConfigError(
                f"{self.path}: tensor {short(name)} has rows of {shape[0]} weights, "
                f"{kind.name} has blocks of {kind.weights}"
            )
        size = math.prod(shape) // kind.weights * kind.bytes
        return name, StoredTensor(kind.name, shape[::-1], size)
