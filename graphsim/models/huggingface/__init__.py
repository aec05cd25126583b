"""Hugging Face `config.json` -> ModelConfig: one small file per group of families.

A family is a function from the fields of a config to a ModelConfig, listed under its `model_type` in the
`FAMILIES` of its file; every file in this folder is looked into. An architecture that no file lists is an error,
never a Llama.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader
from graphsim.models.huggingface.defaults import completed
from graphsim.models.huggingface.encoders import encoder_of
from graphsim.models.huggingface.heads import headed
from graphsim.models.huggingface.keys import account
from graphsim.models.huggingface.positions import stretched
from graphsim.models.huggingface.quantisation import read_precision


def _readers() -> dict[str, Reader]:
    files = [import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    return {kind: reader for file in files for kind, reader in getattr(file, "FAMILIES", {}).items()}


FAMILIES = _readers()
"""How each `model_type` is read."""


def from_config(data: Mapping[str, Any], where: str, ignore: Collection[str] = ()) -> ModelConfig:
    """The model that a Hugging Face config describes; of a multimodal one, its text part.

    ignore: keys that shape layers and that no reader knows, to go on without; `all` for whatever they are
    Raises ConfigError naming the field, what was found and what is allowed; for an unknown `model_type`,
    the nearest known ones.
    """
    text, notes = text_part(data)
    kind = text.get("model_type", data.get("model_type"))
    reader = FAMILIES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise ConfigError(f"{where}: model_type = {kind!r} is not known; {choices_text(kind, FAMILIES)}")
    whole, assumed = completed(str(kind), text)
    fields = Fields(whole, where, lenient=True)
    name = fields.text("_name_or_path", "") or data.get("_name_or_path") or kind
    try:
        config = reader(fields, str(name).rsplit("/", 1)[-1])
        precision = read_precision(fields, data.get("quantization_config", text.get("quantization_config")))
        encoder = encoder_of(data.get("model_type"), data, fields, config.hidden_size)
        positions = stretched(config.max_positions, fields)
        config = headed(config, fields, data)
        unread = account(fields, text, ignore)
    finally:
        fields.finish()
    return replace(
        config, source=where, encoder=encoder, precision=precision, max_positions=positions,
        notes=(*config.notes, *notes, *assumed, *unread),
    )  # fmt: skip


def text_part(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The language model's own config, and a note of what surrounds it."""
    nested = data.get("text_config")
    if not isinstance(nested, Mapping):
        return data, ()
    others = sorted(key.removesuffix("_config") for key in data if key.endswith("_config") and key != "text_config")
    left_out = [name for name in others if name not in ("quantization", "generation")]
    merged = {key: value for key, value in data.items() if key in ("tie_word_embeddings", "quantization_config")}
    note = (f"only the language model is simulated; left out: {', '.join(left_out)}",) if left_out else ()
    return {**merged, **nested}, note
