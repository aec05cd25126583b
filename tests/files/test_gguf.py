"""Headers of GGUF files: every type to the byte, both byte orders, split files, and one sentence for what is broken."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

from graphsim.errors import ConfigError
from graphsim.files.ggml import TYPES
from graphsim.files.gguf import Long, read_gguf
from graphsim.ops.formats import format_of
from tests.benchmarks import measure
from tests.models.checkpoint.gguf_files import Tensors, file_bytes, types
from tests.paths import DATA

METADATA = {
    "general.architecture": "llama", "a.flag": True, "a.number": 7, "a.float": 0.5, "a.list": [1, 2, 3],
    "tokenizer.ggml.tokens": ["<s>", "", "Größe"],
}  # fmt: skip
SOME: Tensors = {"x.weight": ("Q4_K", (3, 512)), "y": ("F32", (5,)), "z.weight": ("IQ1_M", (2, 4, 256))}


def written(folder: Path, data: bytes, name: str = "m.gguf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_every_type_of_llama_cpp_has_its_bytes() -> None:
    ours = {kind.name: (number, kind.weights, kind.bytes) for number, kind in TYPES.items()}
    assert ours == types()


def test_every_quantised_type_is_a_format_that_users_can_name() -> None:
    same = {"NVFP4": "nvfp4_wo"}
    for name, (_, weights, size) in types().items():
        if weights > 1:
            form = format_of(same.get(name, name.lower()))
            assert form is not None
            assert form.bytes == size / weights


@pytest.mark.parametrize(("version", "order"), [(2, "<"), (3, "<"), (3, ">")])
def test_metadata_and_tensors_are_read_in_either_byte_order(tmp_path: Path, version: int, order: str) -> None:
    found = read_gguf(written(tmp_path, file_bytes(METADATA, SOME, version, order)))
    assert dict(found.metadata) == METADATA | {"tokenizer.ggml.tokens": Long(3)}
    assert {name: (t.dtype, t.shape) for name, t in found.stored.tensors.items()} == SOME
    sizes = {name: t.bytes for name, t in found.stored.tensors.items()}
    assert sizes == {"x.weight": 3 * 2 * 144, "y": 20, "z.weight": 8 * 56}


def test_what_llama_cpps_writer_writes_is_read_as_its_reader_does() -> None:
    found = read_gguf(DATA / "checkpoints" / "small.gguf").stored.tensors
    facts = json.loads((DATA / "checkpoints" / "small.json").read_text(encoding="utf-8"))
    assert {name: [t.dtype, list(t.shape or ()), t.bytes] for name, t in found.items()} == facts


def test_parts_of_a_split_file_are_one_model(tmp_path: Path) -> None:
    names = [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for i, (name, tensor) in enumerate(zip(names, SOME, strict=True)):
        metadata = METADATA if i == 0 else {"split.no": i}
        written(tmp_path, file_bytes(metadata, {tensor: SOME[tensor]}), name)
    for name in names:
        found = read_gguf(tmp_path / name)
        assert found.metadata["general.architecture"] == "llama"
        assert found.stored.tensors.keys() == SOME.keys()
    (tmp_path / names[1]).unlink()
    with pytest.raises(ConfigError, match="is one of 3 parts, and the folder lacks m-00002-of-00003.gguf"):
        read_gguf(tmp_path / names[0])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cannot be read"),
        (b"GGML" + bytes(40), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "is GGUF version 1, allowed: 2, 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "states 1,099,511,627,776 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0), "ends within its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "has a text of 1.15292e18 bytes"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", 13), "has metadata of type 13"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 4, 2**50), "has an array of"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 8, 2**50), "texts in arrays"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 9, 1), "has an array of type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sI4QIQ", 3, 1, 0, 1, b"t", 4, 1, 1, 1, 1, 5, 0), r"has type 5, allowed"),
        (b"GGUF" + struct.pack("<IQQQ1sI1QIQ", 3, 1, 0, 1, b"t", 1, 100, 12, 0), "rows of 100 weights, Q4_K has"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 2**31), "has 2147483648 dimensions"),
    ],
)  # fmt: skip
def test_what_is_no_header_is_one_sentence(tmp_path: Path, data: bytes, text: str) -> None:
    with pytest.raises(ConfigError, match=f"m.gguf.*{text}"):
        read_gguf(written(tmp_path, data))


def test_broken_files_are_never_a_traceback_and_take_no_longer_than_whole_ones(tmp_path: Path) -> None:
    whole = file_bytes(METADATA, SOME)
    rng = random.Random(5)
    path = written(tmp_path, whole)
    usual = measure.calls(lambda: read_gguf(path))

    def read() -> None:
        try:
            read_gguf(path)
        except ConfigError as error:
            assert "m.gguf" in str(error)
            assert len(str(error)) < 1_000

    for _ in range(150):
        data = bytearray(whole[: rng.randrange(1, len(whole) + 1)] if rng.random() < 0.5 else whole)
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        written(tmp_path, bytes(data))
        assert measure.calls(read) < 20 * usual


@pytest.mark.slow
def test_words_of_a_large_vocabulary_are_skipped_with_few_calls_each(tmp_path: Path) -> None:
    words = ["word"] * 262_144
    data = file_bytes({**METADATA, "tokenizer.ggml.tokens": words, "tokenizer.ggml.merges": words * 2}, SOME)
    path = written(tmp_path, data)
    assert measure.calls(lambda: read_gguf(path)) < 4 * 3 * len(words)
