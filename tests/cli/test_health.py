"""What `health()` and `graphsim doctor` say of an installation is true."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from importlib import metadata

import pytest

from graphsim.cli import health as looking
from graphsim.cli import main
from graphsim.cli.health import UNLOCKS, health
from tests.paths import ROOT


def test_versions_are_those_of_the_packages() -> None:
    found = health()
    assert metadata.version("networkx").startswith(found.core["networkx"])
    for name, version in found.optional.items():
        assert bool(version) == (
            importlib.util.find_spec("google.protobuf" if name == "protobuf" else name) is not None
        )


def test_every_optional_package_names_the_extra_that_installs_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for package, (extra, _) in UNLOCKS.items():
        if extra:
            names = {re.split(r"[>=\[]", needed)[0] for needed in project["optional-dependencies"][extra]}
            assert package in names


def test_catalogs_are_counted() -> None:
    counts = health().counts
    assert counts["models"] == len(list((ROOT / "models").glob("*.yaml")))
    assert counts["hardware"] == len(list((ROOT / "hardware").glob("*.yaml")))
    assert 0 < counts["calibrations"] < counts["hardware"]


def test_doctor_says_how_to_install_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(looking.metadata, "version", absent)
    monkeypatch.setattr(looking.shutil, "which", lambda _: None)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert 'pip install "graphsim-llm[plot]"' in printed
    assert "your system's package graphviz" in printed


def test_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == health().counts
