"""What lies in a sweep's folder is trusted only where it is whole: a damaged part is done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import graphsim as gs

pytest.importorskip("pyarrow")


def to_disk(folder: Path) -> Path:
    asked = {"batch": [1, 2, 4, 8], "input_tokens": [16, 32], "cost": "roofline", "engine": "reference"}
    return gs.sweep_to_parquet(folder, "gpt-2", "l4", chunk_rows=2, **asked)


def garbage(content: bytes) -> bytes:
    return b"garbage" * 100


def torn(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(content: bytes) -> bytes:
    return b""


def rotten(content: bytes) -> bytes:
    """A file whose end says that it is whole, with one byte in its first page changed."""
    at = 40
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [garbage, torn, emptied, rotten])
def test_a_damaged_part_survives_no_resume(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    folder = to_disk(tmp_path / "sweep")
    expected = pd.read_parquet(folder)
    parts = sorted(folder.glob("part-*.parquet"))
    assert len(parts) == 4
    whole = {path: path.stat().st_mtime_ns for path in parts if path != parts[1]}
    parts[1].write_bytes(damage(parts[1].read_bytes()))
    pd.testing.assert_frame_equal(pd.read_parquet(to_disk(folder)), expected)
    assert {path: path.stat().st_mtime_ns for path in whole} == whole, "whole parts are not written again"


def test_a_part_of_another_sweep_is_done_again(tmp_path: Path) -> None:
    folder = to_disk(tmp_path / "sweep")
    expected = pd.read_parquet(folder)
    pd.DataFrame({"batch": [1.0]}).to_parquet(folder / "part-0000002.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(to_disk(folder)), expected)
