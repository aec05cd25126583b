"""Every Python snippet of the README runs, one after another, as a reader would run them."""

import re
from pathlib import Path

import pytest

from tests.paths import ROOT

README = ROOT / "README.md"


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_every_python_snippet_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for number, snippet in enumerate(snippets("python")):
        exec(compile(snippet, f"README snippet {number + 1}", "exec"), namespace)
    assert (tmp_path / "layer.dot").read_text().startswith("digraph")
    assert "ms to the first token" in capsys.readouterr().out


def test_the_commands_that_ci_runs_are_there() -> None:
    for label in ("sh run", "sh test"):
        assert len(snippets(label)) == 1


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
