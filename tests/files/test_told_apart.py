"""What is empty, what is a header alone and what is broken among good files are told apart, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.files.measured import read_facts
from tests.paths import ROOT

SAID = {
    "empty.csv": ("", "empty.csv: the file is empty"),
    "blank.csv": ("\n\n", "blank.csv: the file is empty"),
    "header.csv": ("id,metric\n", "header.csv: has a header and no rows"),
    "other.csv": ("a,b\n1,2\n", "other.csv: column id is missing"),
}


@pytest.mark.parametrize("name", SAID)
def test_tables_of_facts(name: str, tmp_path: Path) -> None:
    text, expected = SAID[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(gs.ConfigError, match=expected):
        read_facts(tmp_path / name, "facts", ("id", "metric"))
    with pytest.raises(gs.ConfigError, match="is a folder, expected a file of facts"):
        read_facts(tmp_path, "facts")


KINDS = ("kernels", "structure", "e2e", "serving", "served", "training", "public")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_measurement_says_what_a_file_lacks(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("model,hardware,ttft_ms\n")
    for name, expected in (("empty.csv", "the file is empty"), ("header.csv", "")):
        assert main(["validate", kind, str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and name in said and expected in said


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("empty.csv", "", "the file is empty"), ("blank.jsonl", "\n\n", "the file is empty"),
    ("header.csv", "arrival_s,input_tokens,output_tokens\n", "holds no requests, at most a header"),
])  # fmt: skip
def test_traces(name: str, text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(gs.ConfigError, match=f"{name}: {expected}"):
        gs.Traffic.from_file(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "good"), [("hardware", "l4"), ("models", "gpt-2")])
def test_one_broken_file_keeps_no_good_one_away(
    kind: str, good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / kind
    folder.mkdir()
    (folder / "mine.yaml").write_text((ROOT / kind / f"{good}.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "broken.yaml").write_text("name: [\n")
    (folder / "empty.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main([kind, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "mine" in {entry["name"] for entry in json.loads(out)}
    assert sorted(line.split(": ")[1] for line in err.splitlines()) == [
        f"left out {kind}/broken.yaml", f"left out {kind}/empty.yaml",
    ]  # fmt: skip
    assert main([kind, "broken"]) == 2 and f"{kind}/broken.yaml: line 2" in capsys.readouterr().err


def test_an_adapters_empty_weights(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "target_modules": ["c_attn"]}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(gs.ConfigError, match="adapter_model.safetensors: the file is empty"):
        gs.LoraConfig.from_peft(tmp_path)
