"""Any text may be given as a path: a function that reads one ends in a sentence, whatever the text is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.files.measured import read_facts
from graphsim.files.present import expanded, is_file, is_folder, is_present
from graphsim.serving.bench_files import read_bench
from graphsim.training.config_files.reader import read_training_config

NO_PATHS = {
    "too long": "x" * 5000,
    "a part too long": f"folder/{'x' * 5000}/file.yaml",
    "null": "a\0b",
    "nobody": "~nobody-here/a",
}
READERS: dict[str, Callable[[str], object]] = {
    "model": gs.load_model,
    "hardware": gs.load_hardware,
    "engine": lambda text: gs.simulate("gpt-2", "l4", engine=text),
    "PEFT folder": gs.LoraConfig.from_peft,
    "adapter": gs.LoraConfig.from_yaml,
    "trace": gs.Traffic.from_file,
    "training config": read_training_config,
    "checkpoint": gs.check_checkpoint,
    "measured kernels": lambda text: read_facts(text, "kernels"),
    "benchmark": read_bench,
    "GGUF": lambda text: gs.load_model(f"{text}.gguf"),
    "precision": lambda text: gs.simulate("gpt-2", "l4", precision=text),
    "graph": lambda text: gs.from_json(Path(text)),
}


@pytest.mark.parametrize("text", NO_PATHS.values(), ids=NO_PATHS)
@pytest.mark.parametrize("name", READERS)
def test_a_reader_ends_in_a_sentence(name: str, text: str) -> None:
    with pytest.raises(gs.GraphsimError) as caught:
        READERS[name](text)
    assert 10 < len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", NO_PATHS.values(), ids=NO_PATHS)
def test_nothing_is_there(text: str) -> None:
    path = expanded(text)
    assert not is_present(path) and not is_file(path) and not is_folder(path)
