"""Files that commands write: named by the right option, refused in one sentence, and reported once written."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphsim.cli.commands import parser
from graphsim.cli.outputs import OutFile, OutFolder
from graphsim.cli.parsing import subparsers
from tests.command import status_of

COMMANDS = subparsers(parser())
WRITTEN = re.compile(r"\b(write|draw|plot|save|the page to|append)\b")
PATHS = [
    (command, action)
    for command, one in COMMANDS.items()
    for action in one._actions
    if action.metavar in ("FILE", "FOLDER", "PAGE") and WRITTEN.search(str(action.help))
]
MODEL, SERVED = "gpt-2 --hardware l4", "--rate 8 --requests 5 --input 8 --output 4 --no-advice"
RUNS = {
    "run": f"run {MODEL} --html page.html",
    "serve": f"serve {MODEL} {SERVED} --html page.html --timeline line.json --output-json bench.json",
    "train": f"train {MODEL} --method lora --no-advice --html page.html --dot graph.dot --trace line.json",
    "search": f"train {MODEL} --method lora --seq-len 32 --largest-batch --html page.html",
    "explore": f"explore {MODEL} --degrees 1 --out page.html",
    "sweep": f"sweep {MODEL} --to table.csv",
    "export": f"export {MODEL} --to graph.dot",
    "manifest": f"export {MODEL} --format vllm --to start.sh",
    "models": "models gpt-2 --save own.yaml",
}


@pytest.mark.parametrize(("command", "action"), PATHS, ids=[f"{command} {action.dest}" for command, action in PATHS])
def test_every_option_for_a_file_to_write_is_checked_when_it_is_parsed(command: str, action: argparse.Action) -> None:
    expected = OutFolder if action.metavar == "FOLDER" else OutFile
    assert isinstance(action.type, expected)


def test_the_options_for_files_to_write_are_found() -> None:
    assert len(PATHS) >= 18


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_a_written_file_is_reported_in_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status_of(words.split()) == 0
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(f"wrote {path.name}" for path in tmp_path.iterdir())


@pytest.mark.parametrize("words", [RUNS["explore"], RUNS["sweep"], RUNS["export"], RUNS["models"]])
def test_json_lists_what_was_written(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status_of([*words.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    if words != RUNS["sweep"]:  # whose document is the table
        assert found["written"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.slow
def test_the_standard_output_is_not_reported(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "graphsim", *f"export {MODEL} --format vllm --to /dev/stdout".split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert "vllm serve" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"sweep {MODEL} --out x.csv", "--out: 'x.csv' cannot be written: that is a file's name; expected a folder for "
         "Parquet files; --to x.csv writes one file"),
        (f"sweep {MODEL} --out file.txt", "'file.txt' cannot be written: that is a file; expected a folder"),
        (f"sweep {MODEL} --to x.foo", "its suffix is '.foo'; allowed: .csv, .parquet"),
        (f"serve {MODEL} --rate 1 --rows rows.parquet", "'rows.parquet' cannot be written: that is a file's name"),
        (f"serve {MODEL} --rate 1 --timeline line.html", "--timeline: 'line.html' cannot be written"),
        (f"serve {MODEL} --rate 1 --output-json out.csv", "its suffix is '.csv'; allowed: .json"),
        (f"run {MODEL} --html x.txt", "--html: 'x.txt' cannot be written: its suffix is '.txt'; allowed: .html, .htm"),
        (f"run {MODEL} --html report", "it has no suffix; allowed: .html, .htm"),
        (f"run {MODEL} --html folder", "'folder' cannot be written: that is a folder; expected a file"),
        (f"run {MODEL} --html -", "that is not a file's name; the standard output is /dev/stdout"),
        (f"run {MODEL} --html no/such/page.html", "there is no folder 'no/such'"),
        (f"train {MODEL} --dot x.svg", "--dot: 'x.svg' cannot be written: its suffix is '.svg'; allowed: .dot, .gv"),
        (f"train {MODEL} --plot x.txt", "allowed: .png, .svg, .pdf"),
        (f"explore {MODEL} --out x.pdf", "--out: 'x.pdf' cannot be written: its suffix is '.pdf'"),
        (f"export {MODEL} --to x.foo", "'.foo' is not a known suffix"),
        ("models gpt-2 --save x.toml", "--save: 'x.toml' cannot be written: its suffix is '.toml'"),
        ("calibrate --data a.csv --hardware l4 --to x.csv", "--to: 'x.csv' cannot be written"),
        ("measure x.parquet", "'x.parquet' cannot be written: its suffix is '.parquet'; allowed: .csv"),
        ("validate unmeasured a.csv --record x.csv", "--record: 'x.csv' cannot be written"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_meant_is_refused_before_anything_is_made(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("kept")
    assert status_of(words.split()) == 2
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and not out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder"]


def test_a_pipe_needs_no_suffix(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert OutFile((".html",))(str(tmp_path / "pipe")) == str(tmp_path / "pipe")
    assert OutFile((".html",))("page.HTML") == "page.HTML"
