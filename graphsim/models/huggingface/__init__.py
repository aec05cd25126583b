"""Hugging Face `config.json` -> ModelConfig: one small file per group of families.

A family is a function from the fields of a config to a ModelConfig, listed under its `model_type` in the
`FAMILIES` of its file; every file in this folder is imported. An architecture that no file lists is an error;
it is never read as a Llama.
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
from graphsim.models.huggingface.bidirectional import seen_both_ways
from graphsim.models.huggingface.common import Reader
from graphsim.models.huggingface.defaults import completed, tied_by_default, whole_defaults
from graphsim.models.huggingface.drafts import draft_of
from graphsim.models.huggingface.heads import decodes_alone, headed
from graphsim.models.huggingface.keys import account
from graphsim.models.huggingface.positions import stretched
from graphsim.models.huggingface.quantisation import quantised, stored_of
from graphsim.models.huggingface.towers import WHOLES
from graphsim.models.huggingface.towers.conversion import converted
from graphsim.models.huggingface.towers.whole import Parts, Whole, placed
from graphsim.units import short


def _readers() -> dict[str, Reader]:
    files = [import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    return {kind: reader for file in files for kind, reader in getattr(file, "FAMILIES", {}).items()}


QUANTISED = ("quantization_config", "compression_config")
"""Keys under which a config describes its quantisation (the second: older versions of compressed-tensors)."""

FAMILIES = _readers()
"""Readers by `model_type`."""


def from_config(data: Mapping[str, Any], where: str, ignore: Collection[str] = ()) -> ModelConfig:
    """The model that a Hugging Face config describes, with the towers of a multimodal one.

    ignore: unknown keys to ignore although they may shape layers; `all` for all such keys

    Raises ConfigError naming the field, what was found and what is allowed; for an unknown `model_type`,
    the nearest known ones; for unknown towers, how to continue without them.
    """
    draft = draft_of(data, where)
    whole = None if draft else _whole_of(data, where)
    text = draft.part(data) if draft else text_part(data)
    kind = (draft and draft.kind) or text.get("model_type", data.get("model_type"))
    reader = draft.reader if draft else FAMILIES.get(kind) if isinstance(kind, str) else None
    if reader is None and isinstance(data.get("thinker_config"), Mapping):
        alone = "to simulate the part that answers in text, give its thinker_config as the config"
        raise ConfigError(f"{where}: model_type = {kind!r} also produces speech, which is not supported; {alone}")
    if reader is None and whole is not None and text is data:
        raise ConfigError(f"{where}: text_config is missing, expected the config of the language model in {kind!r}")
    if reader is None:
        raise ConfigError(
            f"{where}: model_type = {short(kind)} is not known; {choices_text(kind, FAMILIES)}; "
            "gs.capture or `graphsim models CONFIG --capture` asks transformers instead"
        )
    complete, assumed = completed(str(kind), text, nested=text is not data)
    fields = Fields(complete, where, lenient=True)
    own = fields.text("_name_or_path", "")
    name = (
        data.get("_name_or_path") or data.get("model_type") if whole is not None else own or data.get("_name_or_path")
    )
    try:
        config = reader(fields, str(name or kind).rsplit("/", 1)[-1])
        both = fields.flag("is_encoder_decoder", False) and config.generates
        if both and config.source_encoder is None and not decodes_alone(data):
            fields.problem("is_encoder_decoder", f"is not allowed; {kind} is read as a decoder alone")
        said = _quantised(data, text, fields)
        stored = stored_of(fields, said)
        positions = stretched(config.max_positions, fields)
        config = replace(config, source=where, max_positions=positions)
        if whole is not None:
            given = {name: value for name, value in data.items() if value is not None}
            outer = fields.child({**whole_defaults(str(data["model_type"])), **given}, "", lenient=True)
            config = _with_towers(config, whole, outer)
        config = config if draft else seen_both_ways(headed(config, fields, data), fields, data)
        unread = account(fields, {**data, **text}, (*ignore, *(_towers_of(data) if _alone(data) else ())))
    finally:
        fields.finish()
    kind_of_all = str(data.get("model_type", kind))
    config = replace(config, model_type=kind_of_all, notes=(*config.notes, *assumed, *unread))
    return config if stored is None else quantised(config, stored, said, where)


def _quantised(data: Mapping[str, Any], text: Mapping[str, Any], fields: Fields) -> Any:
    """The description of the quantisation; None if there is none.

    DeepSeek-V4 states the format of its experts outside it; transformers 5.24 moves it inside (`DeepseekV4Config`).
    """
    said = next((part[key] for part in (data, text) for key in QUANTISED if part.get(key) is not None), None)
    experts = fields.raw("expert_dtype")
    return {"expert_dtype": experts, **said} if experts is not None and isinstance(said, Mapping) else said


def _alone(data: Mapping[str, Any]) -> bool:
    """Whether the class in `architectures` is a multimodal config's language model without the towers."""
    kind, named = data.get("model_type"), data.get("architectures")
    whole = WHOLES.get(kind) if isinstance(kind, str) else None
    return whole is not None and isinstance(named, list) and bool(named) and named[0] in whole.alone


def _towers_of(data: Mapping[str, Any]) -> list[str]:
    """Keys of nested configs that may describe towers."""
    return sorted(key for key in data if key.endswith("_config") and key not in _NO_TOWERS)


def _whole_of(data: Mapping[str, Any], where: str) -> Whole | None:
    """The reader of a multimodal config's towers; None if it has none."""
    kind = data.get("model_type")
    towers = _towers_of(data)
    whole = WHOLES.get(kind) if isinstance(kind, str) else None
    if _alone(data):
        return None
    text = data.get("text_config")
    if whole is None and isinstance(text, Mapping) and (towers or not _is_known(kind)):
        what = f"has towers that are not known ({', '.join(towers)})" if towers else "is not known"
        alone = "; to simulate the language model alone, give its text_config as the config"
        read = _is_known(text.get("model_type"))
        raise ConfigError(
            f"{where}: model_type = {short(kind)} {what}{alone if read else ', nor is its language model'}"
        )
    return whole


def _is_known(kind: object) -> bool:
    return isinstance(kind, str) and kind in FAMILIES


_NO_TOWERS = ("text_config", *QUANTISED, "generation_config")
"""Keys of nested configs that do not describe towers."""


def _with_towers(config: ModelConfig, whole: Whole, fields: Fields) -> ModelConfig:
    """The whole model: its language model, under its module paths within the whole, and its towers."""
    config = converted(config, str(fields.raw("model_type")))
    parts = Parts(fields=fields, language=config)
    encoders = whole.encoders(parts)
    return replace(placed(config, whole), encoders=encoders, notes=(*config.notes, *parts.notes))


def text_part(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's config, with the tying of embeddings taken from the whole config, as in transformers."""
    nested = data.get("text_config")
    if not isinstance(nested, Mapping):
        return data
    kind = data.get("model_type")
    outer = {key: data[key] for key in ("quantization_config",) if data.get(key) is not None}
    whole = WHOLES.get(kind) if isinstance(kind, str) else None
    tied = data.get("tie_word_embeddings", tied_by_default(str(kind)) if whole else None)
    tied = tied or False if whole is not None else tied
    if whole is not None and whole.either_ties:
        tied = tied or nested.get("tie_word_embeddings", tied_by_default(str(nested.get("model_type"))))
    within = whole is not None and not whole.bare  # a standalone model with a head uses its own config
    own = {"tie_word_embeddings": tied} if tied is not None and not within else {}
    return {**outer, **nested, **own}
