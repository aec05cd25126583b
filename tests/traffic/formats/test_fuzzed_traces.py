"""Whatever is done to a trace, it is read or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.serving.bench_files import read_bench
from graphsim.traffic.formats import Trace, read_trace
from graphsim.traffic.table import BASE, NOBODY
from tests.traffic.formats import files

NAMES = sorted(files.TEXTS)
PIECES = (
    "\n", ",", '"', "{", "}", "[", "]", "\0", "\ufeff", "-1", "1e999", "nan", "NaN", "Infinity", "null", "true", "é",
    " ",    "999999999999999999999", "0", ":", "\\", "\r", "\t", "'", "-0.0", "1e-320", "0x10",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "12", [], [1], {}, {"value": 1}, [None],
    [[]], {"value": None, "unit": 3}, 2**63, -(2**63), "1e3", [True], "\ud800", {"avg": -1, "unit": "ms"},
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def holds(trace: Trace) -> None:
    """What every table has to be."""
    table = trace.table
    count = len(table)
    assert count > 0 and (table.input_tokens > 0).all() and (table.output_tokens > 0).all()
    alone = table.after == NOBODY
    assert np.isfinite(table.arrival_s[alone]).all() and np.isnan(table.arrival_s[~alone]).all()
    assert (np.diff(table.arrival_s[alone]) >= 0).all() and (table.arrival_s[alone] >= 0).all()
    assert (table.after[~alone] < np.flatnonzero(~alone)).all() and (table.think_s >= 0).all()
    assert (table.adapter >= BASE).all() and (table.adapter < len(trace.adapters)).all()
    if table.prefixes is not None:
        prefixes = table.prefixes
        assert prefixes.start[0] == 0 and prefixes.start[-1] == len(prefixes.segment) == len(prefixes.end)
        for row in range(count):
            ends = prefixes.of(row)[1]
            assert ends == sorted(ends) and all(0 < end <= table.input_tokens[row] for end in ends)


def read_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for reader in (lambda: holds(read_trace(path)), lambda: read_bench(path)):
        try:
            reader()
        except ConfigError as error:
            assert "\n" not in str(error) and str(path) in str(error)


def odd_record(text: str, where: float, key: int, value: Any) -> str:
    """A JSON file in which one value, at any depth, is replaced."""
    rows = [json.loads(line) for line in text.splitlines()]
    place: Any = rows[int(where * len(rows)) % len(rows)]
    for _ in range(4):
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        chosen = keys[key % len(keys)]
        if isinstance(place[chosen], dict | list) and place[chosen] and key % 3:
            place, key = place[chosen], key // 3
            continue
        place[chosen] = value
        break
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_text_with_pieces_put_in_or_cut_out(folder: Path, name: str, data: st.DataObject) -> None:
    text = files.TEXTS[name]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.sampled_from([0, 0, 1, 2, 5, 40]))
        text = text[:start] + data.draw(st.sampled_from(("", *PIECES))) + text[end:]
    read_or_refused(folder / name, text.encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if "json" in name])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), key=st.integers(0, 2000), value=st.sampled_from(ODD))
def test_json_with_an_odd_value(folder: Path, name: str, where: float, key: int, value: Any) -> None:
    read_or_refused(folder / name, odd_record(files.TEXTS[name], where, key, value).encode())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".csv")])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.integers(0, 4), cell=st.integers(0, 7), value=st.sampled_from((*PIECES, "", "1e400", "0.1", "7" * 40)))
def test_tables_with_an_odd_cell(folder: Path, name: str, row: int, cell: int, value: str) -> None:
    rows = [line.split(",") for line in files.TEXTS[name].splitlines()]
    chosen = rows[row % len(rows)]
    chosen[cell % len(chosen)] = value
    read_or_refused(folder / name, "\n".join(",".join(line) for line in rows).encode())


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_bytes_of_any_kind(folder: Path, content: bytes) -> None:
    read_or_refused(folder / "any", content)
