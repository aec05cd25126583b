"""The command that draws the rooms sees what is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.rooms import NAME, circles_of, floors_of, module_graph, modules_of, report, room_graph

FILES = {
    "__init__.py": "from graphsim.top import x\n",
    "low.py": "X = 1\n",
    "mid/__init__.py": "",
    "mid/one.py": "from graphsim.low import X\nfrom graphsim.mid.two import Y\n",
    "mid/two.py": "def late():\n    from graphsim import low\n    return low.X\n\n\nY = 2\n",
    "top.py": "from typing import TYPE_CHECKING\nimport os\nfrom graphsim.mid import one\n\nif TYPE_CHECKING:\n"
    "    from graphsim.side import Z\n",
    "side.py": "from graphsim.top import one\nZ = 1\n",
    "docs/conf.py": "from graphsim.top import one\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / NAME / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / NAME


def test_imports_count_wherever_they_stand(package: Path) -> None:
    graph = room_graph(modules_of(package))
    assert set(graph) == {"low", "mid", "top", "side"}
    assert graph.edges["mid", "low"]["count"] == 2  # one of the two inside a function
    assert graph.nodes["mid"]["lines"] == 2 + 6
    assert set(graph.successors("top")) == {"mid", "side"}


def test_a_circle_of_annotations_is_a_circle(package: Path) -> None:
    modules = modules_of(package)
    assert circles_of(module_graph(modules)) == [["side", "top"]]
    assert circles_of(module_graph(modules, types=False)) == []


def test_floors_stand_on_what_they_import(package: Path) -> None:
    assert floors_of(room_graph(modules_of(package))) == [["low"], ["mid"], ["side", "top"]]
    first, *_, rooms, files = report(package)
    assert first == "4 rooms on 3 floors, 4 edges between them, 17 lines"
    assert (rooms, files) == ("circles of rooms: side <-> top", "circles of modules: side <-> top")


@pytest.mark.slow
def test_the_command_draws_this_checkout_and_any_other(package: Path) -> None:
    for arguments, known in (([], "simulation"), ([str(package.parent)], "side")):
        command = [sys.executable, "-m", "tests.rooms", *arguments]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert f" {known} " in found
