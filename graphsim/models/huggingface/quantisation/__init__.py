"""Quantised checkpoints: the format of each module, with its actual bytes per weight.

One file per group of methods. A method is a function from its `quantization_config` to a `Stored`, listed under its
`quant_method` in the `METHODS` of its file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.quantisation import (
    bitsandbytes,
    compressed_tensors,
    floats,
    integers,
    modelopt,
    others,
    quark,
    torchao,
)
from graphsim.models.huggingface.quantisation.names import texts_in
from graphsim.models.huggingface.quantisation.neutral import NEUTRAL
from graphsim.models.huggingface.quantisation.stored import Choose, Stored
from graphsim.models.quantised import Kind, Module, settled
from graphsim.ops.formats import FORMATS, Format

_FILES = (bitsandbytes, compressed_tensors, floats, integers, modelopt, others, quark, torchao)
METHODS: dict[str, Callable[[Fields], Stored | None]] = {
    name: reader for file in _FILES for name, reader in file.METHODS.items()
}
"""Readers by `quant_method`."""


def stored_of(fields: Fields, quantised: Any) -> Stored | None:
    """The formats that a `quantization_config` states; None if there is none. Problems are noted in `fields`."""
    if quantised is None:
        return None
    quant = fields.child(quantised, "quantization_config", lenient=True)
    method = quant.text("quant_method", _unnamed_method(quant))
    reader = METHODS.get(method)
    if reader is not None:
        found = reader(quant)
        return None if found is None else replace(found, notes=(*found.notes, *_unread(quant)))
    if method in others.NOT_SIMULATED:
        quant.problems.append(
            f"quantization_config.quant_method = '{method}' is not simulated; give a config without it, and precision="
        )
    else:
        quant.problems.append(
            f"quantization_config.quant_method = '{method}' is not known; {choices_text(method, METHODS)}"
        )
    return None


def _unnamed_method(quant: Fields) -> str:
    """The method of a config that does not name it: ModelOpt's file, or bitsandbytes of 2023 (transformers 4.30)."""
    nested = quant.data.get("quantization")
    said = nested if isinstance(nested, Mapping) else quant.data
    if said.get("quant_algo") or said.get("kv_cache_quant_algo"):
        return "modelopt"
    return "bitsandbytes" if quant.data.get("load_in_4bit") or quant.data.get("load_in_8bit") else ""


def _unread(quant: Fields) -> list[str]:
    """A sentence on settings of the config that are not read; none if all are."""
    idle = [key for key in quant.data if quant.is_idle(str(key)) and key not in NEUTRAL and quant.data[key]]
    return [f"quantization_config: {', '.join(map(str, idle))} ignored"] if idle else []


def quantised(config: ModelConfig, stored: Stored, said: Any, where: str) -> ModelConfig:
    """The model with the precision of its checkpoint.

    said: the `quantization_config`
    Raises ConfigError if experts that one kernel processes are in different formats.
    """
    texts = "\n".join(texts_in(said))
    named = {int(index) for index in re.findall(r"experts\\?\.(\d{1,5})\\?\.", texts)}
    plain = FORMATS["bf16"]

    def decide(module: Module) -> Format:
        if module.kind is not Kind.EXPERTS:
            return stored.choose(module) or plain
        found = {_of(stored.choose, module, part) or plain for part in _of_experts(module, named)}
        if len(found) > 1:
            path, formats = module.path.replace("{}", str(module.layer)), ", ".join(sorted(own.name for own in found))
            raise ConfigError(
                f"{where}: quantization_config stores experts of {path} in {formats}; engines run them in one kernel, "
                "so that they must be alike"
            )
        return found.pop()

    precision = settled(config, decide, stored.cache, texts)
    return replace(config, precision=precision, notes=(*config.notes, *stored.notes))


def _of(choose: Choose, module: Module, part: tuple[str, ...]) -> Format | None:
    return choose(replace(module, names=(part,)))


_FIRST = ".experts.0."


def _of_experts(module: Module, named: set[int]) -> list[tuple[str, ...]]:
    """The name parts of every expert that the config names, and of one that it does not name."""
    if named <= {0}:
        return list(module.names)
    other = [index for index in range(module.experts) if index not in named][:1]
    return [
        tuple(name.replace(_FIRST, f".experts.{index}.") for name in part)
        for index in (*sorted(index for index in named if index < module.experts), *other)
        for part in module.names
    ]
