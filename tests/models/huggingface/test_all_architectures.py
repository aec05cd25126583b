"""Every architecture that transformers has: what loads is exact, the rest is refused in a sentence.

The configs are the defaults of transformers 5.24, with its own parameters and PEFT's adapters in architectures.csv.
"""

import csv
import json

import pytest

import graphsim as gs
from graphsim.models.huggingface import from_config
from tests.paths import REFERENCE

TABLE = REFERENCE / "architectures.csv"
QV = gs.LoraConfig(rank=8, target_modules=["q_proj", "v_proj"])
READ = 233
"""How many of them could be read when this was written."""


def adapters(model: gs.ModelConfig) -> str:
    """Parameters of an adapter on q_proj and v_proj; nothing where no module is called so, as in PEFT."""
    try:
        return str(gs.lora_parameters(model, QV))
    except gs.ConfigError as error:
        assert "q_proj" in str(error), error
        return ""


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.is_file(), reason="reference configs are not available here")
def test_every_architecture_that_loads_has_the_parameters_and_adapters_of_transformers_and_peft() -> None:
    wrong, read, refused = [], 0, 0
    for row in csv.DictReader(TABLE.open(encoding="utf-8")):
        kind = row["model_type"]
        data = json.loads((REFERENCE / "architectures" / f"{kind}.json").read_text(encoding="utf-8"))
        try:
            model = from_config(data, kind)
        except gs.ConfigError as error:
            assert str(error).startswith(f"{kind}: ") and "\n" not in str(error)
            refused += 1
            continue
        read += 1
        found, expected = (str(model.num_parameters), adapters(model)), (row["params"], row["lora_qv_r8"])
        if found != expected:
            wrong.append(f"{kind}: {found}, expected {expected}")
    assert not wrong, "\n".join(wrong)
    assert read >= READ, f"{read} of {read + refused} architectures are read, {READ} were"
