"""`--pass module:name`: a user's own pass reaches every command that builds graphs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphsim.cli import main

MODULE = """
from dataclasses import dataclass, replace
import graphsim as gs
from graphsim.ops import Norm


@dataclass(frozen=True)
class DropNorms(gs.Pass):
    def rule(self, graph):
        def rule(name, op, inputs):
            yield inputs[0] if isinstance(op, Norm) else (name, op, inputs)

        return rule
"""
COMMANDS = {
    "run": (["run", "gpt-2", "--hardware", "l4"], lambda found: found["tpot_s"]),
    "lora": (["lora", "gpt-2", "--hardware", "l4"], lambda found: found["strategies"]["base"]["tpot_s"]),
    "sweep": (["sweep", "gpt-2", "--hardware", "l4"], lambda found: found[0]["tpot_s"]),
    "best": (["best", "gpt-2", "--hardware", "l4"], lambda found: found["best"][0]["tpot_s"]),
    "explain": (["explain", "gpt-2", "--hardware", "l4"], lambda found: found["totals"]["tpot_s"]),
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_passes.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "misspelt.py").write_text("def rule(:\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    return "own_passes:DropNorms"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pass_reaches_the_command(command: str, module: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, tpot_s = COMMANDS[command]

    def asked(*more: str) -> float:
        assert main([*words, "--cost", "roofline", "--json", *more]) == 0
        return float(tpot_s(json.loads(capsys.readouterr().out)))

    assert asked("--pass", module) < asked()


def test_a_pass_reaches_the_picture(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, there in (([], True), (["--pass", module], False)):
        assert main(["export", "gpt-2", "--hardware", "l4", "--to", "graph.txt", *more]) == 0
        assert ("Norm(" in (tmp_path / "graph.txt").read_text(encoding="utf-8")) is there


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("own_passes:DropNorm", "has no 'DropNorm'; did you mean 'DropNorms'?"),
        ("own_passes", "expected module:name"),
        ("nowhere:Pass", "module 'nowhere' cannot be imported"),
        ("misspelt:Pass", "module 'misspelt' cannot be imported: SyntaxError: "),
        ("own_passes:replace", "expected a subclass of graphsim.Pass"),
    ],
)
def test_what_is_no_pass_is_told(ref: str, message: str, module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "gpt-2", "--hardware", "l4", "--pass", ref]) == 2
    assert message in capsys.readouterr().err
