"""A model that was read from a model file can be written as one."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_saved_model_is_the_model_again(tmp_path: Path, suffix: str) -> None:
    config = gs.load_model("llama-2-7b")
    again = gs.load_model(config.save(tmp_path / f"mine{suffix}"))
    assert (again.layers, again.stem, again.head) == (config.layers, config.stem, config.head)
    assert again.num_parameters == config.num_parameters


def test_another_suffix_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(gs.ConfigError, match=r"mine.txt' does not end in one of .yaml, .yml, .json"):
        gs.load_model("llama-2-7b").save(tmp_path / "mine.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["qwen3-14b"])
def test_a_model_that_no_model_file_describes_is_not_saved(tmp_path: Path, name: str) -> None:
    with pytest.raises(gs.ConfigError, match="was not read from a model file"):
        gs.load_model(name).save(tmp_path / "mine.yaml")


def test_the_command_line_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    assert main(["models", "llama-2-7b", "--save", str(path)]) == 0
    assert capsys.readouterr() == ("", f"wrote {path}\n")
    assert main(["models", "--save", str(path)]) == 2
    assert "NAME is missing" in capsys.readouterr().err
