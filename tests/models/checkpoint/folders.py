"""Model folders as people have them: a config.json and the headers of safetensors files, without the weights."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graphsim.files.tensors import StoredTensor, StoredTensors
from tests.paths import DATA, hf_configs

Header = dict[str, tuple[str, tuple[int, ...]]]
"""The format and shape of each tensor."""

BITS = {"F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "I8": 8, "U8": 8, "I32": 32, "I64": 64, "BOOL": 8, "F4": 4}


@functools.cache
def saved_models() -> dict[str, Any]:
    """What transformers saves for a config of each `model_type`; see tests/data/make_checkpoint_names.py."""
    return dict(json.loads((DATA / "checkpoints" / "tensors.json").read_text(encoding="utf-8")))


@functools.cache
def configs() -> dict[str, dict[str, Any]]:
    """Those of tests/data/hf, read once."""
    return hf_configs()


def tensors_of(kind: str) -> int:
    """How many tensors transformers saves for a `model_type`."""
    ways = (re.findall(r"\{([^}]*)\}", entry) for entry in saved_models()[kind]["tensors"])
    return sum(math.prod(len(_numbers(text)) for text in texts) for texts in ways)


def saved(kind: str) -> tuple[dict[str, Any], Header]:
    """The config and the tensors, in bf16, that transformers saves for a `model_type`."""
    row = saved_models()[kind]
    return copy.deepcopy(configs()[row["config"]]), {
        name: ("BF16", tuple(shape)) for entry, shape in row["tensors"].items() for name in names_of(entry)
    }


def names_of(entry: str) -> Iterator[str]:
    """`layers.{0-1}.w`: the names `layers.0.w` and `layers.1.w`."""
    texts = re.split(r"\{([^}]*)\}", entry)
    for indices in itertools.product(*(_numbers(text) for text in texts[1::2])):
        pairs = itertools.zip_longest(texts[::2], (str(i) for i in indices), fillvalue="")
        yield "".join(itertools.chain.from_iterable(pairs))


def _numbers(text: str) -> list[int]:
    runs = [run.split("-") for run in text.split(",")]
    return [i for run in runs for i in range(int(run[0]), int(run[-1]) + 1)]


def stored(header: Header) -> StoredTensors:
    """A header as the comparison takes it."""
    tensors = {name: StoredTensor(dtype, shape, size(dtype, shape)) for name, (dtype, shape) in header.items()}
    return StoredTensors(source="folder", tensors=tensors, total_bytes=sum(t.bytes for t in tensors.values()))


def size(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    return math.prod(shape) * BITS[dtype] // 8


def header_bytes(header: Header) -> bytes:
    """A safetensors file up to where its weights would begin."""
    entries, at = {}, 0
    for name, (dtype, shape) in header.items():
        end = at + size(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    return struct.pack("<Q", len(text)) + text


def write_folder(folder: Path, config: Mapping[str, Any], header: Header, shards: int = 1) -> Path:
    """A model folder, with an index where it has several files."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if shards == 1:
        (folder / "model.safetensors").write_bytes(header_bytes(header))
        return folder
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    for i, name in enumerate(names):
        part = dict(list(header.items())[i::shards])
        (folder / name).write_bytes(header_bytes(part))
    write_index(folder, header, {tensor: names[i % shards] for i, tensor in enumerate(header)})
    return folder


def write_index(folder: Path, header: Header, files: Mapping[str, str]) -> None:
    """The index of a checkpoint in several files."""
    total = sum(size(dtype, shape) for dtype, shape in header.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(files)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
