"""A user's mistake in a file gives one readable sentence: where, what was found, what is allowed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.files.reading import MAX_FILE_BYTES, Fields, load_mapping
from graphsim.hardware import load_hardware
from graphsim.units import parse_quantity

GOOD = """\
title: A device
architecture: ada
flops_per_s:
  bf16: {value: 100 TFLOP/s, source: my own measurement}
vector_flops_per_s: 10 TFLOP/s
cores: 10
clock: 1.5 GHz
memory:
  capacity: 16 GiB
  bandwidth: 1 TB/s
links:
  - {name: bridge, devices: 2, bandwidth: 100 GB/s, latency: 1 us}
  - {name: network, devices: 8, bandwidth: 10 GB/s, latency: 5 us}
host_link: {bandwidth: 16 GB/s, latency: 10 us}
"""


def change(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


# What is wrong, the file's text, and what the sentence has to say.
BAD_TEXTS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty file": ("", ("the file is empty",)),
    "only comments": ("# nothing\n", ("holds nothing", "expected a mapping")),
    "a list": ("- 1\n- 2\n", ("holds a list", "expected a mapping")),
    "a scalar": ("h100", ("holds a str", "expected a mapping")),
    "binary file": (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", ("is not a text file", "UTF-8")),
    "control characters": ("title: a\x00b\n", ("not valid YAML",)),
    "syntax error": ("title: [1, 2\n", ("line 2", "not valid YAML")),
    "tab indentation": ("memory:\n\tcapacity: 1\n", ("line 2", "not valid YAML")),
    "key given twice": (GOOD + "cores: 11\n", ("line 15", "'cores' is given twice")),
    "nested key given twice": (change("  bandwidth: 1 TB/s", "  capacity: 1 TB"), ("'capacity' is given twice",)),
    "alias": (change("cores: 10", "cores: &x 10\npower: *x"), ("line 7", "aliases are not allowed")),
    "alias bomb": ("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n", ("aliases are not allowed",)),
    "very deep": ("[" * 100_000, ("nested over",)),
    "python object": ("title: !!python/object/apply:os.getcwd []\n", ("not valid YAML", "python/object")),
    "two documents": (GOOD + "---\n" + GOOD, ("not valid YAML", "document")),
    "huge integer": (change("cores: 10", "cores: " + "9" * 5000), ("cannot be parsed",)),
    "huge hexadecimal": (change("cores: 10", "cores: 0x" + "f" * 5000), ("cores", "is not a finite number")),
    "unknown key": (GOOD + "core: 10\n", ("core is not a known key", "did you mean 'cores'?")),
    "unknown nested key": (change("  capacity:", "  size:"), ("memory.size is not a known key", "capacity")),
    "unknown key of a number": (change("source:", "sorce:"), ("flops_per_s.bf16.sorce", "did you mean 'source'?")),
    "number without value": (change("value: 100 TFLOP/s, ", ""), ("flops_per_s.bf16.value is missing",)),
    "unknown key of a link": (change("latency: 1 us", "latncy: 1 us"), ("links[0].latncy", "did you mean 'latency'?")),
    "unknown number format": (change("bf16:", "bfloat16:"), ("flops_per_s.bfloat16", "did you mean 'bf16'?")),
    "no number format": (change("  bf16: {value: 100 TFLOP/s, source: my own measurement}\n", ""), ("flops_per_s",)),
    "wrong unit": (change("1 TB/s", "1 TFLOP/s"), ("memory.bandwidth", "'TFLOP/s'", "a unit of bytes/s")),
    "bits for bytes": (change("100 GB/s", "800 Gb/s"), ("links[0].bandwidth", "'Gb/s'", "did you mean 'GB/s'?")),
    "no unit": (change("capacity: 16 GiB", "capacity: 16"), ("memory.capacity = 16", "is the unit missing?")),
    "seconds for microseconds": (change("latency: 1 us", "latency: 2"), ("links[0].latency = 2", "from 0 to 1")),
    "unit where none belongs": (change("cores: 10", "cores: 10 SMs"), ("cores", "'SMs'", "a plain number")),
    "decimal comma": (change("1.5 GHz", "1,5 GHz"), ("clock", "'1,5 GHz' is not a quantity")),
    "negative": (change("cores: 10", "cores: -10"), ("cores = -10", "from 1")),
    "negative text": (change("1 TB/s", "-1 TB/s"), ("memory.bandwidth = '-1 TB/s'",)),
    "zero": (change("cores: 10", "cores: 0"), ("cores = 0", "from 1")),
    "nan": (change("cores: 10", "cores: .nan"), ("cores", "nan is not a finite number")),
    "infinite": (change("1.5 GHz", ".inf"), ("clock", "inf is not a finite number")),
    "infinite text": (change("1 TB/s", "1e999 TB/s"), ("memory.bandwidth", "is not a finite number")),
    "a flag for a number": (change("cores: 10", "cores: yes"), ("cores", "True is not a number")),
    "a date for a number": (change("cores: 10", "cores: 2020-01-01"), ("cores", "is not a number")),
    "a list for a number": (change("cores: 10", "cores: [10]"), ("cores", "[10] is not a number")),
    "a number for a mapping": (change("  capacity: 16 GiB\n  bandwidth: 1 TB/s\n", "").replace("memory:", "memory: 16"),
                               ("memory = 16 is not a mapping",)),
    "a mapping for a list": (GOOD.replace("  - {name: b", "  b: {name: b").replace("  - {name: n", "  n: {name: n"),
                             ("links", "expected a list")),
    "a number for a text": (change("A device", "[1]"), ("title = [1] is not allowed; expected a string",)),
    "missing part": (change("host_link: {bandwidth: 16 GB/s, latency: 10 us}\n", ""), ("host_link is missing",)),
    "missing number": (change("clock: 1.5 GHz\n", ""), ("clock is missing, expected a number in Hz",)),
    "unknown architecture": (change("ada", "hoper"), ("architecture = 'hoper'", "did you mean 'hopper'?")),
    "levels that shrink": (change("devices: 8", "devices: 2"), ("'network' reaches 2 devices", "the 2 of 'bridge'")),
    "a group of one": (change("devices: 2", "devices: 1"), ("links[0].devices = 1", "from 2")),
    "reference that is no text": (GOOD + "references: {mine: 7}\n", ("references.mine = 7", "expected a string")),
}  # fmt: skip


def one_sentence(load: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        load()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)
    return text


@pytest.mark.parametrize("wrong", BAD_TEXTS)
def test_a_bad_file_gives_one_sentence_that_names_place_finding_and_choice(tmp_path, wrong):
    content, expected = BAD_TEXTS[wrong]
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    text = one_sentence(lambda: load_hardware(path))
    assert text.startswith(f"{path}: ")
    for part in expected:
        assert part in text, text


def test_the_good_file_behind_the_bad_ones_loads(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())  # some editors begin a file with a byte order mark
    assert load_hardware(path).name == "mine"


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert "allowed: at most" in one_sentence(lambda: load_hardware(path))


def test_folders_missing_files_and_pipes_are_named_as_such(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert "is a folder" in one_sentence(lambda: load_hardware(tmp_path / "folder.yaml"))
    assert "no such hardware file" in one_sentence(lambda: load_hardware(tmp_path / "absent.yaml"))
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.yaml")
        assert "not a regular file" in one_sentence(lambda: load_hardware(tmp_path / "pipe.yaml"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "secret.yaml"
    path.write_text(GOOD)
    path.chmod(0)
    assert "cannot be read" in one_sentence(lambda: load_hardware(path))


def test_json_is_checked_as_yaml_is(tmp_path):
    path: Path = tmp_path / "mine.json"
    for content, part in [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": 1,}', "line 1: not valid JSON"),
        ("[1]", "holds a list"),
        ("[" * 100_000, "cannot be parsed"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be parsed"),
    ]:
        path.write_text(content)
        assert part in one_sentence(lambda: load_mapping(path))


@pytest.mark.parametrize(
    "ref", ["", ".", "..", "x" * 5000, "x" * 5000 + ".yaml", "a\0b", "a\0b.yaml", "~nobody/x.yaml", 7, None]
)
def test_odd_names_are_not_known_and_nothing_worse(ref):
    assert "hardware" in one_sentence(lambda: load_hardware(ref))


def test_a_mapping_of_odd_keys_is_refused_in_one_sentence():
    for mapping in ({}, {1: 2}, {None: None}, {("a",): 1}, {"flops_per_s": {1: 1e12}}, {"links": "none"}, {"name": 3}):
        assert one_sentence(lambda mapping=mapping: load_hardware(mapping)).startswith("hardware mapping: ")


def test_a_long_list_of_problems_is_cut_to_eight():
    fields = Fields({f"key{i}": i for i in range(100)}, "somewhere")
    text = one_sentence(fields.finish)
    assert text.count("is not a known key") == 8 and text.endswith("(and 92 more)")


@pytest.mark.parametrize(
    "text, kind, value",
    [
        ("989.4 TFLOP/s", "flop/s", 989.4e12), ("1 PFLOPS", "flop/s", 1e15), ("80 GiB", "bytes", 80 * 2**30),
        ("80GB", "bytes", 80e9), ("3.35 TB/s", "bytes/s", 3.35e12), ("2 us", "s", 2e-6), ("2µs", "s", 2e-6),
        ("1_000", "", 1000.0), (".5 ms", "s", 5e-4), ("1e3 MHz", "Hz", 1e9), (700, "W", 700.0),
        (np.int64(3), "", 3.0), ("3.35e12", "bytes/s", 3.35e12),
    ],
)  # fmt: skip
def test_quantities_are_read_in_si_units(text, kind, value):
    assert parse_quantity(text, kind) == pytest.approx(value, rel=1e-12)
