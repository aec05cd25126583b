"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphsim as gs
from graphsim.files import written


def test_what_was_there_stays_where_the_new_content_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.txt"
    written.write_text(path, "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(gs.ConfigError, match="cannot be written to .No space left"):
        written.write_text(path, "new")
    assert path.read_text() == "old"


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    written.write_text(path, "old")
    path.chmod(0o600)
    written.write_text(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]
