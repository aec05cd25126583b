"""A shell that has read the completion script completes commands, options, models and devices."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main

pytest.importorskip("shtab")
BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "graphsim"
    command = [sys.executable, "-m", "graphsim", "completion", "bash"]
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    return path


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"source '{script}'; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        "$(complete -p graphsim | sed 's/.*-F \\([^ ]*\\) .*/\\1/') graphsim; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run([str(BASH), "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr, done.stderr
    return {word.strip() for word in done.stdout.split("\n") if word.strip()}


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("graphsim", "sens"), {"sensitivity"}),
        (("graphsim", "run", "llama-3.2"), {"llama-3.2-1b", "llama-3.2-3b"}),
        (
            ("graphsim", "run", "gpt-2", "--hardware", "h100"),
            {name for name in gs.list_hardware() if name[:4] == "h100"},
        ),
        (("graphsim", "run", "gpt-2", "--preci"), {"--precision"}),
        (
            ("graphsim", "lora", "gpt-2", "--engine", "sg"),
            {"sglang", "sglang-0.4", "sglang-0.5.9", "sglang-deepep", "sglang-deepep-tbo", "sglang-fast"},
        ),
    ],
)
def test_bash_completes(script: Path, words: tuple[str, ...], offered: set[str]) -> None:
    assert completed(script, *words) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_there_is_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "llama-3.1-8b" in capsys.readouterr().out


def test_without_shtab_the_sentence_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert 'pip install "graphsim-llm[completion]"' in capsys.readouterr().err
