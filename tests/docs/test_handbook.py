"""The handbook tells the truth: its blocks run, print what is shown, and the site builds.

GRAPHSIM_UPDATE_DOCS=1 writes down what the blocks print now.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphsim
from tests.docs.pages import DOCS, EXAMPLES, PAGES, ROOT, run, unknown_blocks

LONG = ("disaggregation", "fleets", "hardware", "offloading", "serving", "training")
RUN = [pytest.param(page, marks=pytest.mark.slow if page.stem in LONG else (), id=page.stem) for page in PAGES]
"""The pages that fit a device to its measurements, and simulate servers and trainings, take long."""


@pytest.mark.parametrize("page", RUN)
def test_blocks_run_and_print_what_the_page_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "import torch\n" in page.read_text(encoding="utf-8"):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    now = run(page)
    if os.environ.get("GRAPHSIM_UPDATE_DOCS"):
        page.write_text(now, encoding="utf-8")
    shown = page.read_text(encoding="utf-8")
    assert now.splitlines() == shown.splitlines(), f"{page.name}: GRAPHSIM_UPDATE_DOCS=1 renews it"


def test_every_worked_example_is_on_a_page_that_runs_it() -> None:
    text = (DOCS / "worked-examples.md").read_text(encoding="utf-8")
    assert len(EXAMPLES) == 2
    for script in EXAMPLES:
        assert f"$ python {script.relative_to(ROOT)}\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_is_left_unrun(page: Path) -> None:
    assert not unknown_blocks(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_and_linked_pages_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"^([a-z-]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert {page.stem for page in PAGES} - {"index"} == listed


def test_the_reference_lists_every_public_name() -> None:
    listed = set(re.findall(r"^\.\. auto\w+:: graphsim\.(?:\w+\.)*(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE))
    assert set(graphsim.__all__) <= listed, sorted(set(graphsim.__all__) - listed)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module)
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]
    assert 'src="explored.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "figuresOf" in (tmp_path / "explored.html").read_text(encoding="utf-8")
    reference = (tmp_path / "api.html").read_text(encoding="utf-8")
    for name in graphsim.__all__:
        assert re.search(rf'id="graphsim(\.\w+)*\.{name}"', reference), name


def test_the_handbook_stays_out_of_the_wheel() -> None:
    import tomllib

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "graphsim/docs" in wheel["exclude"]
    assert ast.parse((DOCS / "conf.py").read_text())
