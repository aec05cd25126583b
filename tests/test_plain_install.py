"""With the four packages that graphsim depends on and no other: reports, explore, CSV and the handbook's tour work, and
what does not names the extra that it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT

BLOCKED = ("pyarrow", "fastparquet", "matplotlib", "plotly", "google", "torch", "transformers", "peft", "shtab",
           "distributed", "dask", "sympy", "scipy", "IPython")  # fmt: skip

WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
"""Ahead of everything else: these packages are not there."""

MODEL = ["gpt-2", "--hardware", "l4"]


def python(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    text = f"BLOCKED = {BLOCKED!r}\nsys_path = {str(ROOT)!r}\n{WITHOUT}\nsys.path.insert(0, sys_path)\n{script}"
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


COMMANDS = """
import contextlib, io, json
from graphsim.cli import main

told = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    told.append({"status": status, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(told))
"""
"""One after the other in a single process: what is not there is missed by whichever command asks for it."""


def graphsim(folder: Path, commands: list[list[str]]) -> list[dict[str, Any]]:
    """The status, output and errors of each of some commands."""
    done = python(folder, COMMANDS, json.dumps(commands))
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(found) == len(commands)
    return found


FILES = [
    (["run", *MODEL, "--html", "run.html"], "Plotly"),
    (["train", *MODEL, "--no-advice", "--html", "train.html"], "Plotly"),
    (["serve", *MODEL, "--rate", "4", "--requests", "9", "--no-advice", "--html", "serve.html"], "Plotly"),
    (["explore", *MODEL, "--out", "explore.html"], "<html"),
    (["export", *MODEL, "--to", "export.html"], "Plotly"),
    (["export", *MODEL, "--to", "export.csv"], "latency_s"),
    (["export", *MODEL, "--to", "export.dot"], "digraph"),
    (["export", *MODEL, "--to", "export.trace.json"], "traceEvents"),
    (["sweep", *MODEL, "--batch", "1-3", "--to", "sweep.csv"], "tpot_s"),
]
"""Commands that end in the file they write, and what is inside."""


@pytest.mark.slow
def test_reports_pages_and_tables_need_nothing_else(tmp_path: Path) -> None:
    for (words, inside), done in zip(FILES, graphsim(tmp_path, [words for words, _ in FILES]), strict=True):
        assert done["status"] == 0 and done["err"] == f"wrote {words[-1]}\n", (words, done)
        assert inside in (tmp_path / words[-1]).read_text(encoding="utf-8"), words


@pytest.mark.slow
def test_every_answer_needs_nothing_else(tmp_path: Path) -> None:
    commands = [[name, *MODEL, "--json"] for name in ("run", "lora", "fit", "explain", "sensitivity", "best")]
    for words, done in zip(commands, graphsim(tmp_path, commands), strict=True):
        assert done["status"] == 0 and json.loads(done["out"]), (words, done)


MISSING = [
    (["sweep", *MODEL, "--to", "it.parquet"], "parquet"),
    (["sweep", *MODEL, "--out", "folder"], "parquet"),
    (["best", *MODEL, "--plot", "it.svg"], "plot"),
    (["train", *MODEL, "--plot", "it.svg"], "plot"),
    (["export", *MODEL, "--to", "it.et"], "chakra"),
    (["completion", "bash"], "completion"),
    (["models", "it.json", "--capture"], "torch"),
]


@pytest.mark.slow
def test_an_extra_that_is_missing_is_named(tmp_path: Path) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (tmp_path / "it.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    for (words, extra), done in zip(MISSING, graphsim(tmp_path, [words for words, _ in MISSING]), strict=True):
        assert done["status"] == 2 and done["err"].count("\n") == 1, (words, done)
        assert f'pip install "graphsim-llm[{extra}]"' in done["err"] and extra in known
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"], "a failed command leaves no file behind"


@pytest.mark.slow
def test_the_readmes_tour_needs_an_extra_for_parquet_alone(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert blocks
    kept = [block for block in blocks if "parquet" not in block]
    done = python(tmp_path, "\n".join(kept))
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_install_that_is_said_is_one_that_works() -> None:
    """From a checkout, of an extra beside the installed package, or of other projects' packages."""
    allowed = re.compile(r"""pip install (-q )?(-e )?(\.|['"]\.(\[[a-z,]+\])?['"]|"graphsim-llm\[|torch|genz)""")
    for path in [ROOT / "README.md", *ROOT.glob("graphsim/**/*.py"), *ROOT.glob("graphsim/docs/*.md")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            for found in re.finditer(r"pip install .*", line):
                fixed = found[0].replace("\\", "").replace("{DISTRIBUTION}", "graphsim-llm").replace("{name}", "torch")
                assert allowed.match(fixed), f"{path}: {line}"
