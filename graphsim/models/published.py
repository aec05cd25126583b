"""Catalog files that hold a model's published Hugging Face config.

    source: https://huggingface.co/Qwen/Qwen3-14B/blob/main/config.json
    parameters: 14768307200            # the published count
    ids: [Qwen/Qwen3-14B, Qwen/Qwen3-14B-Base]
    config: {model_type: qwen3, hidden_size: 5120, …}

`config` holds the published keys that determine the structure, including `quantization_config` for a quantised
checkpoint. In addition there are the keys of every model file: name, source, parameters, aliases, ids, notes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.yaml import origin_of

KEY = "config"
"""The key that identifies such files."""


def read_published(data: Mapping[str, Any], where: str, name: str, ignore: Collection[str]) -> ModelConfig:
    """The model of a file's `config`, under the file's own name.

    Raises ConfigError for keys that such a file does not have, and as the Hugging Face reader does.
    """
    from graphsim.models.huggingface import from_config

    fields = Fields(data, where)
    origin = {key: value for key, value in origin_of(fields, name).items() if key != "model_type"}
    fields.mapping(KEY, required=True, lenient=True)
    fields.finish()
    config = from_config(data[KEY], f"{where}: {KEY}", ignore)
    return replace(config, **origin | {"notes": (*origin["notes"], *config.notes)})
