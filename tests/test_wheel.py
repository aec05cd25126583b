"""A wheel, installed and used from another folder, brings its models and devices along."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import graphsim as gs
from tests.paths import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's contents in a folder of their own; the dependencies are those of the running Python."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("graphsim_llm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRAPHSIM")} | {"PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_wheel_has_the_version_of_the_package_and_its_types(installed: Path) -> None:
    (metadata,) = installed.glob("graphsim_llm-*.dist-info/METADATA")
    assert f"\nVersion: {gs.__version__}\n" in metadata.read_text(encoding="utf-8")
    assert (installed / "graphsim" / "py.typed").is_file()
    assert (installed / "graphsim" / "export" / "assets" / "plotly-basic.min.js").is_file()


@pytest.mark.slow
def test_a_users_type_checker_sees_the_types(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "mine.py").write_text("import graphsim as gs\n\nrank: int = gs.LoraConfig(rank=8).target_modules\n")
    found = run(installed, tmp_path, "-m", "mypy", "--follow-imports=silent", "--cache-dir", str(tmp_path), "mine.py")
    assert "Incompatible types in assignment" in found.stdout and "import-untyped" not in found.stdout, found.stdout


@pytest.mark.slow
def test_models_and_devices_are_found_from_any_folder(installed: Path, tmp_path: Path) -> None:
    found = run(installed, tmp_path, "-m", "graphsim", "models", "--json")
    assert found.returncode == 0, found.stderr
    assert {entry["name"] for entry in json.loads(found.stdout)} >= set(gs.list_models())
    found = run(installed, tmp_path, "-m", "graphsim", "hardware", "--json")
    assert {entry["name"] for entry in json.loads(found.stdout)} >= set(gs.list_hardware())


def test_recipes_optimizers_and_methods_come_along(installed: Path, tmp_path: Path) -> None:
    from graphsim.training.methods import list_methods
    from graphsim.training.optimizers import list_optimizers
    from graphsim.training.recipe import list_recipes

    code = (
        "import json; from graphsim.training.recipe import list_recipes, load_recipe; "
        "from graphsim.training.optimizers import list_optimizers; from graphsim.training.methods import list_methods; "
        "from graphsim.training.config_files.known_keys import known_keys; known_keys('trainer'); "
        "load_recipe('unsloth'); "
        "print(json.dumps([list_recipes(), list_optimizers(), list_methods()]))"
    )
    found = run(installed, tmp_path, "-c", code)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == [list_recipes(), list_optimizers(), list_methods()]


def test_reports_and_tables_need_no_extra(installed: Path, tmp_path: Path) -> None:
    missing = "import sys; sys.modules.update(dict.fromkeys(('matplotlib', 'plotly', 'pyarrow', 'google.protobuf')))"
    code = f"{missing}; from graphsim.cli import main; raise SystemExit(main(sys.argv[1:]))"
    for arguments in (
        ("run", "gpt-2", "--hardware", "l4", "--html", "run.html"),
        ("explore", "gpt-2", "--hardware", "l4", "--out", "explore.html"),
        ("sweep", "gpt-2", "--hardware", "l4", "--batch", "1,8", "--to", "sweep.csv"),
    ):
        found = run(installed, tmp_path, "-c", code, *arguments)
        assert found.returncode == 0, found.stderr
        assert (tmp_path / arguments[-1]).stat().st_size > 100


def test_an_estimate_is_the_checkouts(installed: Path, tmp_path: Path) -> None:
    code = "import graphsim as gs; print(gs.__file__); print(repr(float(gs.simulate('gpt-2', 'h100-sxm').latency_s)))"
    found = run(installed, tmp_path, "-c", code)
    assert found.returncode == 0, found.stderr
    where, latency = found.stdout.split()
    assert where.startswith(str(installed))
    assert float(latency) == pytest.approx(float(gs.simulate("gpt-2", "h100-sxm").latency_s), rel=1e-12)


def test_a_users_own_files_come_first(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.yaml").write_text(
        (ROOT / "models" / "gpt-2.yaml").read_text().replace("aliases", "# aliases")
    )
    found = run(installed, tmp_path, "-m", "graphsim", "models", "mine", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["parameters"] == 124_439_808
