"""Headers of safetensors files: the bytes they state, and one sentence for each that is broken."""

from __future__ import annotations

import json
import random
import re
import struct
from pathlib import Path

import pytest

from graphsim.errors import ConfigError
from graphsim.files.safetensors import read_file, read_folder
from graphsim.units import amount_text
from tests.benchmarks import measure
from tests.models.checkpoint.folders import Header, header_bytes, write_folder, write_index

SOME: Header = {"a.weight": ("BF16", (3, 5)), "b.weight": ("F4", (4, 6)), "c": ("F32", ()), "d": ("I8", (0, 7))}


def file_of(folder: Path, entries: object, name: str = "model.safetensors") -> Path:
    text = json.dumps(entries).encode()
    path = folder / name
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def test_bytes_are_those_of_shapes_and_formats(tmp_path: Path) -> None:
    found = read_folder(write_folder(tmp_path / "m", {}, SOME))
    assert found is not None
    assert {name: tensor.bytes for name, tensor in found.tensors.items()} == {
        "a.weight": 30,
        "b.weight": 12,
        "c": 4,
        "d": 0,
    }
    assert found.total_bytes == 46
    assert [tensor.elements for tensor in found.tensors.values()] == [15, 24, 1, 0]


def test_shards_are_one_checkpoint_and_others_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", {}, SOME, shards=3)
    (folder / "consolidated.safetensors").write_bytes(b"whatever")
    found = read_folder(folder)
    assert found is not None
    assert found.tensors.keys() == SOME.keys()
    assert found.complete


def test_an_index_alone_tells_names_and_the_total(tmp_path: Path) -> None:
    write_index(tmp_path, SOME, dict.fromkeys(SOME, "model-00001-of-00001.safetensors"))
    found = read_folder(tmp_path)
    assert found is not None
    assert not found.complete
    assert found.tensors.keys() == SOME.keys()
    assert found.total_bytes == 46


def test_a_folder_without_either_has_no_checkpoint(tmp_path: Path) -> None:
    file_of(tmp_path, {}, "adapter_model.safetensors")
    assert read_folder(tmp_path) is None


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"dtype": "F33", "shape": [2], "data_offsets": [0, 4]}, "has dtype 'F33', allowed: BOOL"),
        ({"dtype": "F16", "shape": [2, -1], "data_offsets": [0, 4]}, r"has shape \[2, -1\], expected whole numbers"),
        ({"dtype": "F16", "shape": "2", "data_offsets": [0, 4]}, "has shape '2'"),
        ({"dtype": ["F16"], "shape": [2], "data_offsets": [0, 4]}, r"has dtype \['F16'\]"),
        ({"dtype": "F16", "shape": [2], "data_offsets": [0, 5]}, "has 5 bytes, its shape and dtype need 4"),
        ({"dtype": "F16", "shape": [2], "data_offsets": [4, 0]}, "has -4 bytes"),
        ({"dtype": "F16", "shape": [2], "data_offsets": [0]}, r"has data_offsets \[0\], expected two numbers"),
        ({"dtype": "F16", "shape": [2]}, "has data_offsets None"),
        ({"dtype": "F16", "shape": [2], "data_offsets": ["a", "b"]}, "has data_offsets"),
        ([], "has shape None"),
        (None, "has shape None"),
    ],
)
def test_a_tensor_that_does_not_add_up_is_one_sentence(tmp_path: Path, entry: object, text: str) -> None:
    path = file_of(tmp_path, {"fine": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}, "odd": entry})
    with pytest.raises(ConfigError, match=f"model.safetensors: tensor 'odd' {text}"):
        read_file(path)


@pytest.mark.parametrize(
    ("index", "text"),
    [
        ([], "weight_map = None is not allowed"),
        ({"weight_map": {}}, "weight_map = {} is not allowed"),
        ({"weight_map": {"a": "../../etc/passwd"}}, "weight_map"),
        ({"weight_map": {"a": 7}}, "weight_map"),
        ({"weight_map": {"a": "f"}, "metadata": {"total_size": "much"}}, "metadata.total_size = 'much' is not allowed"),
        ({"weight_map": {"a": "f"}, "metadata": {"total_size": -1}}, "metadata.total_size = -1 is not allowed"),
    ],
)
def test_an_index_that_is_none_is_one_sentence(tmp_path: Path, index: object, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ConfigError, match=text):
        read_folder(tmp_path)


def test_an_index_and_its_files_must_name_the_same_tensors(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", {}, SOME, shards=2)
    files = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    write_index(folder, SOME, {**files, "lost": next(iter(files.values()))})
    with pytest.raises(ConfigError, match="no file holds tensor 'lost'"):
        read_folder(folder)
    del files["c"]
    write_index(folder, SOME, files)
    with pytest.raises(ConfigError, match="it does not list tensor 'c'"):
        read_folder(folder)


def test_one_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("x.safetensors", "y.safetensors"):
        (tmp_path / name).write_bytes(header_bytes(SOME))
    with pytest.raises(ConfigError, match="y.safetensors: tensor 'a.weight' is in another file"):
        read_folder(tmp_path)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 988097824\n")
    with pytest.raises(ConfigError, match="model.safetensors: is a Git LFS pointer instead of the file"):
        read_folder(tmp_path)


def test_broken_headers_are_never_a_traceback_and_take_no_longer_than_whole_ones(tmp_path: Path) -> None:
    whole = header_bytes(SOME)
    rng = random.Random(3)
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole)
    usual = measure.calls(lambda: read_file(path))

    def read() -> None:
        try:
            read_file(path)
        except ConfigError as error:
            assert str(path) in str(error)
            assert len(str(error)) < 600

    for _ in range(150):
        data = bytearray(whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.5 else whole)
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        assert measure.calls(read) < 20 * usual


@pytest.mark.parametrize("length", [0, 1, 10**8 + 1, 2**63, 2**64 - 1])
def test_a_length_that_no_header_has_is_refused_without_reading(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(
        ConfigError,
        match=rf"has a header of {re.escape(amount_text(length))} bytes, expected a length from 2 to 100,000,000",
    ):
        read_file(path)
