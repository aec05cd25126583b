"""Files are found by name, by path and in the user's own folders, which come before what is shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graphsim.errors import ConfigError
from graphsim.files.catalog import find_file, folders, list_names
from graphsim.hardware import list_hardware, load_hardware
from tests.paths import ROOT

SHIPPED = ROOT / "hardware"


@pytest.fixture(autouse=True)
def nobody_else(tmp_path, monkeypatch):
    """An empty working folder and home, and no search path."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GRAPHSIM_PATH", raising=False)


def own(folder: Path, name: str, cores: int) -> Path:
    """A user's copy of the L4 with another number of cores."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text((SHIPPED / "l4.yaml").read_text().replace("{value: 58,", f"{{value: {cores},"))
    return path


def test_a_shipped_device_is_found_by_name_from_any_folder():
    hardware = load_hardware("h100-sxm")
    assert hardware.name == "h100-sxm" and hardware.path is not None and hardware.path.is_file()


@pytest.mark.parametrize("name", ["H100-SXM", "h100_sxm", "H100 SXM"])
def test_the_spelling_of_a_name_does_not_matter(name):
    assert load_hardware(name).name == "h100-sxm"


def test_an_unknown_name_suggests_the_nearest_and_lists_the_known(tmp_path):
    own(Path("hardware"), "a-card-of-mine.yaml", 7)
    with pytest.raises(ConfigError, match=r"hardware 'h100-smx' is not known; did you mean 'h100-sxm'\?.*a-card-of"):
        load_hardware("h100-smx")
    with pytest.raises(ConfigError, match=r"'H100 NVL' is not known: the catalog has no file.*nearest: h100-pcie"):
        load_hardware("H100 NVL")


def test_a_path_is_taken_as_it_stands(tmp_path):
    path = own(tmp_path / "elsewhere", "card.yaml", 7)
    assert load_hardware(path).cores == load_hardware(str(path)).cores == 7
    path.rename(tmp_path / "work" / "card.yaml")
    assert load_hardware("card.yaml").cores == 7
    assert load_hardware("./card.yaml").name == "card"
    own(tmp_path / "home", "card.yml", 8)
    assert load_hardware("~/card.yml").cores == 8


def test_the_users_folders_come_in_order_before_the_shipped_one(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("GRAPHSIM_PATH", os.pathsep.join([str(first), "", str(tmp_path / "absent"), str(second)]))
    places = [tmp_path / "work", first, second, tmp_path / "home" / ".config" / "graphsim"]
    for cores, place in reversed(list(enumerate(places, start=1))):
        own(place / "hardware", "l4.yaml", cores)
        assert load_hardware("l4").cores == cores
    assert [folder.parent for folder in folders("hardware")][1:4] == places[1:]


def test_own_devices_are_listed_with_the_shipped_ones(tmp_path):
    own(Path("hardware"), "b.yaml", 1)
    own(Path("hardware"), "a.yml", 1)
    (Path("hardware") / "notes.txt").write_text("not a device")
    assert list_hardware() == sorted({"a", "b"} | {path.stem for path in SHIPPED.glob("*.yaml")})


def test_the_same_folder_is_searched_once(monkeypatch):
    monkeypatch.chdir(SHIPPED.parent)
    monkeypatch.setenv("GRAPHSIM_PATH", str(SHIPPED.parent))
    assert len(list(folders("hardware"))) == 1


def test_a_file_where_a_folder_should_be_and_a_vanished_folder_do_no_harm(tmp_path, monkeypatch):
    Path("hardware").write_text("not a folder")
    gone = tmp_path / "gone"
    gone.mkdir()
    assert load_hardware("l4").name == "l4"
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_hardware("l4").name == "l4"
    assert list_names("nothing-of-this-kind") == []


def test_each_kind_has_its_own_word_in_the_error():
    with pytest.raises(ConfigError, match=r"^model 'x' is not known"):
        find_file("models", "x")
    with pytest.raises(ConfigError, match=r"no such model file$"):
        find_file("models", "x/config.json")


def test_an_installed_package_finds_its_files_beside_it(tmp_path):
    site = tmp_path / "site-packages"
    shutil.copytree(SHIPPED.parent / "graphsim", site / "graphsim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SHIPPED, site / "graphsim_data" / "hardware")  # as pyproject.toml lays out the wheel
    code = "from graphsim.hardware import load_hardware as load; print(load('mi300x').path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == site / "graphsim_data" / "hardware" / "mi300x.yaml"
