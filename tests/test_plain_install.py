"""With the four packages that graphsim depends on and no other: reports, explore, CSV and the handbook's tour work, and
what does not names the extra that it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

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


def graphsim(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "from graphsim.cli import main\nsys.exit(main(sys.argv[1:]))", *words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "file", "inside"),
    [
        (["run", *MODEL, "--html", "it.html"], "it.html", "Plotly"),
        (["train", *MODEL, "--no-advice", "--html", "it.html"], "it.html", "Plotly"),
        (["serve", *MODEL, "--rate", "4", "--requests", "9", "--no-advice", "--html", "it.html"], "it.html", "Plotly"),
        (["explore", *MODEL, "--out", "it.html"], "it.html", "<html"),
        (["export", *MODEL, "--to", "it.html"], "it.html", "Plotly"),
        (["export", *MODEL, "--to", "it.csv"], "it.csv", "latency_s"),
        (["export", *MODEL, "--to", "it.dot"], "it.dot", "digraph"),
        (["export", *MODEL, "--to", "it.trace.json"], "it.trace.json", "traceEvents"),
        (["sweep", *MODEL, "--batch", "1-3", "--to", "it.csv"], "it.csv", "tpot_s"),
    ],
)
def test_reports_pages_and_tables_need_nothing_else(words: list[str], file: str, inside: str, tmp_path: Path) -> None:
    done = graphsim(tmp_path, *words)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert inside in (tmp_path / file).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("words", ["run", "lora", "fit", "explain", "sensitivity", "best"])
def test_every_answer_needs_nothing_else(words: str, tmp_path: Path) -> None:
    done = graphsim(tmp_path, words, *MODEL, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["sweep", *MODEL, "--to", "it.parquet"], "parquet"),
        (["sweep", *MODEL, "--out", "folder"], "parquet"),
        (["best", *MODEL, "--plot", "it.svg"], "plot"),
        (["train", *MODEL, "--plot", "it.svg"], "plot"),
        (["export", *MODEL, "--to", "it.et"], "chakra"),
        (["completion", "bash"], "completion"),
        (["models", "it.json", "--capture"], "torch"),
    ],
)
def test_an_extra_that_is_missing_is_named(words: list[str], extra: str, tmp_path: Path) -> None:
    (tmp_path / "it.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    done = graphsim(tmp_path, *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f'pip install "graphsim-llm[{extra}]"' in done.stderr
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extra in known
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
