"""The README's commands and Python blocks run as a reader would run them, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.command import status_of
from tests.docs.pages import run
from tests.paths import ROOT

README = ROOT / "README.md"


@pytest.mark.slow
def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    assert "ms to the first token" in run(README)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_what_the_page_says_of_a_server_is_what_its_command_finds(capsys: pytest.CaptureFixture[str]) -> None:
    page = README.read_text(encoding="utf-8")
    [command] = re.findall(r"^\$ graphsim (serve .*)$", page, re.MULTILINE)
    assert status_of(command.split()) == 0
    assert "adapter slots limit (max_loras)" in capsys.readouterr().out and "Here the adapter slots;" in page


def test_the_commands_that_ci_runs_are_there() -> None:
    for label in ("sh run", "sh test"):
        assert len(re.findall(rf"^```{label}\n", README.read_text(encoding="utf-8"), re.MULTILINE)) == 1


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
