"""GGUF files, written byte by byte as the format's specification says."""

from __future__ import annotations

import csv
import functools
import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from tests.models.checkpoint.folders import names_of
from tests.paths import DATA

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""The type of each tensor, and its shape, outputs first."""


@functools.cache
def types() -> dict[str, tuple[int, int, int]]:
    """Number, weights of a block, bytes of a block: llama.cpp's own, see tests/data/make_gguf_facts.py."""
    rows = csv.DictReader((DATA / "checkpoints" / "ggml_types.csv").open(encoding="utf-8"))
    return {row["type"]: (int(row["number"]), int(row["weights"]), int(row["bytes"])) for row in rows}


@functools.cache
def converted_models() -> dict[str, Any]:
    """What llama.cpp's converter writes for a config of each architecture."""
    return dict(json.loads((DATA / "checkpoints" / "gguf.json").read_text(encoding="utf-8")))


def size(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    _, weights, block = types()[kind]
    return math.prod(shape) // weights * block


def file_bytes(metadata: Mapping[str, Any], tensors: Tensors, version: int = 3, order: str = "<") -> bytes:
    """A GGUF file up to where its weights would begin."""
    out = [b"GGUF", struct.pack(f"{order}IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        out += [_text(key, order), _value(value, order)]
    at = 0
    for name, (kind, shape) in tensors.items():
        out += [_text(name, order), struct.pack(f"{order}I", len(shape))]
        out.append(struct.pack(f"{order}{len(shape)}Q", *shape[::-1]))
        out.append(struct.pack(f"{order}IQ", types()[kind][0], at))
        at += -(-size(kind, shape) // 32) * 32
    return b"".join(out)


def _text(text: str, order: str) -> bytes:
    data = text.encode()
    return struct.pack(f"{order}Q", len(data)) + data


def _value(value: Any, order: str) -> bytes:
    if isinstance(value, list):
        kind, code = {str: (8, ""), bool: (7, "?"), int: (4, "I")}[type(value[0])]
        entries = b"".join(_text(v, order) if kind == 8 else struct.pack(f"{order}{code}", v) for v in value)
        return struct.pack(f"{order}IIQ", 9, kind, len(value)) + entries
    if isinstance(value, str):
        return struct.pack(f"{order}I", 8) + _text(value, order)
    kind, code = {bool: (7, "?"), float: (6, "f"), int: (4, "I")}[type(value)]
    return struct.pack(f"{order}I{code}", kind, value)


def usual_type(name: str, shape: tuple[int, ...]) -> str:
    """Types as llama.cpp's Q4_K_M mixes them, roughly: vectors and scans in F32, some matrices in Q6_K."""
    if (
        len(shape) == 1
        or "norm" in name
        or name.endswith(".bias")
        or name.endswith((".ssm_a", ".ssm_d", "conv1d.weight", "conv.weight"))
    ):
        return "F32"
    if shape[-1] % 256:
        return "Q8_0" if shape[-1] % 32 == 0 else "F16"
    return "Q6_K" if "ffn_down" in name or name == "output.weight" else "Q4_K"


def converted(key: str, type_of: Callable[[str, tuple[int, ...]], str] = usual_type) -> tuple[dict[str, Any], Tensors]:
    """Metadata and tensors of an architecture's model."""
    row = converted_models()[key]
    shapes = {name: tuple(shape) for entry, shape in row["tensors"].items() for name in names_of(entry)}
    return row["metadata"], {name: (type_of(name, shape), shape) for name, shape in shapes.items()}
