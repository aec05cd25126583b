"""Makes graphsim/models/huggingface/defaults.json: what transformers assumes where a config.json leaves a field out.

Run it in an environment with transformers 5.24: `python tests/data/make_hf_defaults.py`. Only numbers and
switches that a reader asks for are kept; hidden size and number of layers are never assumed.
"""

import dataclasses
import json
import re
from pathlib import Path

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

READERS = Path(__file__).parents[2] / "graphsim" / "models" / "huggingface"
NEVER = {"hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "n_layers", "num_layers"}


def defaults_of(kind: str, asked: set[str]) -> dict[str, object]:
    found = {}
    for field in dataclasses.fields(CONFIG_MAPPING[kind]):
        if field.name in asked - NEVER and isinstance(field.default, (bool, int, float)):
            found[field.name] = field.default
    return found


def main() -> None:
    text = "".join(path.read_text() for path in sorted(READERS.glob("*.py")))
    asked = set(re.findall(r'"([a-z_0-9A-Z]+)"', text))
    kinds = sorted(kind for kind in asked if kind in CONFIG_MAPPING)
    table = {kind: found for kind in kinds if (found := defaults_of(kind, asked))}
    rows = [f"{json.dumps(kind)}: {json.dumps(found)}" for kind, found in table.items()]
    (READERS / "defaults.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
