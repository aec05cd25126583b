"""`validate structure`: facts of a CSV against simulated structure."""

import json
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.validation.structure import COLUMNS, validate_structure

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip
# per layer: q 64x64, k and v 32x64, o 64x64, three MLP weights of 64x128, two norms; embedding, head, final norm
PARAMETERS = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128 + 2 * 64) + 2 * 100 * 64 + 64
ADAPTER = 2 * 16 * ((64 + 64) + (64 + 32))


def write_facts(folder: Path, parameters: object) -> Path:
    (folder / "hf_configs").mkdir()
    (folder / "hf_configs" / "a--b_config.json").write_text(json.dumps(LLAMA))
    path = folder / "facts.csv"
    path.write_text(f"{','.join(COLUMNS)}\na/b,{parameters},,{ADAPTER},\n")
    return path


def test_equal_facts_are_equal_and_others_are_not(tmp_path: Path) -> None:
    assert validate_structure(write_facts(tmp_path, PARAMETERS))["equal"].all()
    (tmp_path / "other").mkdir()
    wrong = validate_structure(write_facts(tmp_path / "other", PARAMETERS + 1))
    assert wrong.set_index("fact")["equal"].to_dict() == {"params": False, "lora_qv_r16": True}


def test_the_command_prints_one_json_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "structure", str(write_facts(tmp_path, PARAMETERS)), "--json"]) == 0
    assert [row["equal"] for row in json.loads(capsys.readouterr().out)] == [True, True]


def test_a_file_without_the_columns_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("name,params\na,1\n")
    with pytest.raises(gs.ConfigError, match="prefill_flops_b2_s256 is missing"):
        validate_structure(path)
    assert main(["validate", "structure", str(tmp_path / "none.csv")]) == 2
