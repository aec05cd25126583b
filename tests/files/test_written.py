"""Files are written whole or not at all."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.files import written
from tests.paths import ROOT
from tests.rooms import modules_of, tree


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


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "there.txt")
    written.write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "there.txt").read_text() == "new"


def test_what_breaks_while_it_is_written_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written.whole(path) as file:
        assert file.suffix == ".csv" and file.parent == tmp_path
        file.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(gs.ConfigError, match=r"cannot be written to \(.*\); there is no folder '.*missing'"):
        written.write_text(tmp_path / "missing" / "x.txt", "new")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(gs.ConfigError, match=r"cannot be written to \(Not a directory\)"):
        written.write_text(tmp_path / "file" / "x.txt", "new")


WRITERS: dict[str, Callable[[Path], object]] = {
    "report": lambda path: gs.to_html(gs.simulate("gpt-2", "l4"), path),
    "picture": lambda path: gs.to_dot(gs.build_graph("gpt-2"), path),
    "timeline": lambda path: gs.to_trace(gs.simulate("gpt-2", "l4"), path),
    "graph": lambda path: gs.to_json(gs.build_graph("gpt-2"), path),
    "document": lambda path: gs.create_full_prefill_model("gpt-2", 16, data_path=path),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "report" else n for n in WRITERS])
def test_a_full_disk_leaves_what_was_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path if name == "document" else tmp_path / "out.json"
    WRITERS[name](path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before) == 1

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(gs.ConfigError, match="No space left on device"):
        WRITERS[name](path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


MODULES = modules_of(ROOT / "graphsim")

APPENDED = ("serving.fleet.size_kept", "calibration.measure", "cli.commands")
"""Files that grow line by line while something goes on, whose torn last line whoever goes on cuts off; and the end of
a pipe."""


def writes(call: ast.Call) -> str:
    """What a call writes a file with, as far as its text tells."""
    function = call.func
    name = (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
    texts = [arg.value for arg in [*call.args, *(k.value for k in call.keywords)] if isinstance(arg, ast.Constant)]
    if name == "open" and any(isinstance(text, str) and text[:1] in ("w", "x", "a") for text in texts):
        return name
    if name in ("write_text", "write_bytes") and isinstance(function, ast.Attribute):
        return name
    takes_a_file = name in ("to_csv", "savefig", "ParquetWriter") and call.args
    inside = isinstance(call.args[0], ast.Name) and call.args[0].id in ("file", "path") if takes_a_file else True
    return "" if inside else name


def test_every_file_goes_through_the_one_helper() -> None:
    for module in MODULES.keys() - {"files.written"}:
        found = {writes(call) for call in ast.walk(tree(MODULES[module])) if isinstance(call, ast.Call)}
        assert not found - {"", *(("open",) if module in APPENDED else ())}, module
