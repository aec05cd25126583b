"""The handbook tells the truth: its blocks run, print what is shown, and the site builds.

GRAPHSIM_UPDATE_DOCS=1 writes down what the blocks print now.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from graphsim.cli import main
from tests.docs.pages import DOCS, PAGES, commands, run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run_and_print_what_the_page_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, pairs = run(page)
    if os.environ.get("GRAPHSIM_UPDATE_DOCS"):
        page.write_text(text, encoding="utf-8")
        return
    for number, (shown, printed) in enumerate(pairs, start=1):
        assert shown == printed, f"{page.name}, block {number}; GRAPHSIM_UPDATE_DOCS=1 renews it"


@pytest.mark.parametrize("command", commands())
def test_commands_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(command)
    assert program == "graphsim"
    assert main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_and_linked_pages_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"^([a-z-]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert {page.stem for page in PAGES} - {"index"} == listed


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]
    assert "simulate" in (tmp_path / "api.html").read_text(encoding="utf-8")
