"""The input of tower readers: the whole config, nested ones with transformers' defaults, the language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.defaults import nested_defaults
from graphsim.models.layers.encoder import Encoder
from graphsim.models.layers.ends import Head


@dataclass(slots=True, kw_only=True)
class Parts:
    """One multimodal config.

    fields: fields of the whole config
    language: the model read from its text part
    notes: notes on assumed values, extended while reading
    """

    fields: Fields
    language: ModelConfig
    notes: list[str] = field(default_factory=list)

    @property
    def hidden(self) -> int:
        """Width of the language model."""
        return self.language.hidden_size

    def nested(self, key: str, kind: str, path: str = "") -> Fields:
        """The fields of a nested config, with transformers' defaults for missing ones.

        kind: its `model_type` if it states none
        """
        data = self.fields.raw(key)
        if not isinstance(data, Mapping):
            self.fields.problems.append(f"{self.fields.name(key)} is missing, expected a mapping")
            data = {}
        return self.completed(data, path or self.fields.name(key), kind)

    def completed(self, data: Mapping[str, Any], path: str, kind: str) -> Fields:
        """The fields of any mapping, completed in the same way."""
        named = data.get("model_type")
        whole, note = nested_defaults(named if isinstance(named, str) else kind, kind, data)
        if note:
            self.notes.append(f"{path} leaves out, so assumed as transformers does: {note}")
        return self.fields.child({"model_type": kind, **whole}, path, lenient=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """How a multimodal `model_type` is read.

    encoders: returns its towers, given its parts
    prefix: module path of the language model
    bare: whether this is without its output head, as in AutoModel
    either_ties: whether embeddings are also tied if only the text config states it
    adapts_head: whether PEFT's all-linear includes the output head, as the whole model does not declare it
    alone: classes in `architectures` of the language model without its towers
    """

    encoders: Callable[[Parts], tuple[Encoder, ...]]
    prefix: str = "model.language_model."
    bare: bool = True
    either_ties: bool = False
    adapts_head: bool = False
    alone: tuple[str, ...] = ()


def placed(config: ModelConfig, whole: Whole) -> ModelConfig:
    """The language model with its module paths within the whole model."""
    base = config.layer_prefix.split(".", 1)[0] + "."
    if whole.adapts_head and isinstance(config.head, Head):
        config = replace(config, head=replace(config.head, linear=True))
    if not whole.prefix:
        return config

    def moved(path: str) -> str:
        if whole.bare:
            return whole.prefix + path.removeprefix(base) if path.startswith(base) else path
        return whole.prefix + path

    def within(part: Any) -> Any:
        changes = {}
        for name in getattr(part, "__dataclass_fields__", ()):
            value = getattr(part, name)
            path = isinstance(value, str) and name in _PATHS and value
            new = moved(value) if path else within(value) if hasattr(value, "__dataclass_fields__") else value
            if new is not value:
                changes[name] = new
        return replace(part, **changes) if changes else part

    return replace(config, layer_prefix=moved(config.layer_prefix), stem=within(config.stem), head=within(config.head))


_PATHS = ("module", "position_module", "projection", "name", "prefix")
"""Fields of the stem and the head that hold module paths."""
