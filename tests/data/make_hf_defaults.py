"""Makes graphsim/models/huggingface/defaults.json: what transformers assumes where a config.json leaves a field out.

Run it in an environment with transformers 5.24: `python tests/data/make_hf_defaults.py`. Only numbers and
switches that a reader asks for are kept, and lists of towers.
"""

import dataclasses
import json
import re
from pathlib import Path

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

READERS = Path(__file__).parents[2] / "graphsim" / "models" / "huggingface"


def fields_of(kind: type, asked: set[str]) -> dict[str, object]:
    found = {}
    for field in dataclasses.fields(kind):
        factory = field.default_factory is not dataclasses.MISSING
        value = field.default_factory() if factory else field.default
        listed = isinstance(value, (list, tuple)) and all(isinstance(entry, (int, str)) for entry in value)
        if field.name in asked and (isinstance(value, (bool, int, float)) or listed):
            found[field.name] = list(value) if listed else value
    return found


def defaults_of(kind: str, asked: set[str]) -> dict[str, object]:
    found = fields_of(CONFIG_MAPPING[kind], asked)
    return {name: value for name, value in found.items() if not isinstance(value, list)}


def nested_of(kinds: list[str], asked: set[str]) -> dict[str, dict[str, object]]:
    """Towers' configs by their `model_type`: those of the multimodal kinds."""
    found = {}
    for kind in kinds:
        for part in CONFIG_MAPPING[kind].sub_configs.values():
            name = getattr(part, "model_type", "")
            if name and name not in found and name not in kinds:
                found[name] = fields_of(part, asked)
    return found


def main() -> None:
    text = "".join(path.read_text() for path in sorted(READERS.glob("*.py")))
    towers = "".join(path.read_text() for path in sorted((READERS / "towers").glob("*.py")))
    asked, nested = (set(re.findall(r'"([a-z_0-9A-Z.-]+)"', part)) for part in (text, towers))
    kinds = sorted(kind for kind in asked if kind in CONFIG_MAPPING)
    table = {kind: found for kind in kinds if (found := defaults_of(kind, asked))}
    wholes = sorted(kind for kind in nested if kind in CONFIG_MAPPING)
    trunks = {kind: fields_of(CONFIG_MAPPING[kind], nested) for kind in wholes if not CONFIG_MAPPING[kind].sub_configs}
    for kind, found in {**nested_of(wholes, nested | asked), **trunks}.items():
        table.setdefault(kind, found)
    for kind in wholes:
        own = fields_of(CONFIG_MAPPING[kind], {"tie_word_embeddings", *nested})
        table[kind] = {**own, **table.get(kind, {})}
    rows = [f"{json.dumps(kind)}: {json.dumps(found)}" for kind, found in sorted(table.items()) if found]
    (READERS / "defaults.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
