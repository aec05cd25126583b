"""The adapter and its base model in trainers' files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsim.training.config_files.config_values import ConfigValues, Source

FOUR_BITS, EIGHT_BITS = "4", "8"


def tell_lora(source: Source, keys: Mapping[str, str], *, names: Mapping[str, str] | None = None) -> None:
    """Fields of PEFT's LoraConfig by a trainer's keys.

    keys: PEFT's name of each
    names: the same of lists of names
    """
    for key, field in keys.items():
        source.tell(f"lora.{field}", source.fields.raw(key), key)
    for key, field in (names or {}).items():
        found = source.names(key)
        source.tell(f"lora.{field}", None if found is None else list(found), key)
    dropout = source.fields.number("lora_dropout", None, most=0.999)
    source.tell("recipe.lora_dropout", dropout, "lora_dropout")


def tell_targets(source: Source, key: str, everything: tuple[str, ...] = ("all-linear", "all_linear", "all")) -> None:
    """Target modules; one of `everything` stands for all linears but the head."""
    found = source.names(key)
    if found is None:
        return
    if len(found) == 1 and found[0] in everything:
        source.tell("lora.target_modules", "all-linear", key)
    elif isinstance(source.fields.raw(key), str) and len(found) == 1 and not found[0].isidentifier():
        source.tell("lora.target_modules", found[0], key)  # an expression for the whole path
    else:
        source.tell("lora.target_modules", list(found), key)


def tell_bits(source: Source, four: str = "load_in_4bit", eight: str = "load_in_8bit") -> None:
    """A base that bitsandbytes quantises as it is loaded."""
    if source.flag(four):
        source.tell("bits", FOUR_BITS, four)
    if source.flag(eight):
        source.tell("bits", EIGHT_BITS, eight)


def tell_nested(source: Source, key: str, default: bool) -> None:
    """Whether scales of 4-bit weights are quantised once more."""
    source.tell("nested", source.flag(key), key)
    source.told.suppose("nested", default)


def method_of(told: ConfigValues) -> tuple[str, str]:
    """The method's name, and the base's format if it differs from the method's own."""
    name = told.get("method", "")
    adapted = bool(told.under("lora.")) or told.get("adapter_config") is not None
    if not name:
        name = "lora" if adapted else "full"
    if name in ("full", "pretrain"):
        if told.get("bits"):
            told.problems.append(
                f"{told.places.get('bits', 'bits')}: a base in {told.get('bits')} bits cannot be trained in full; "
                "expected an adapter, or a base in 16 bits"
            )
        return name, ""
    bits = told.get("bits")
    if name == "lora" and bits == FOUR_BITS:
        name = "qlora"
    if name == "lora" and bits == EIGHT_BITS:
        name = "int8-lora"
    base_format = ""
    if bits == FOUR_BITS and not told.get("nested", True):
        base_format = "nf4"
    elif name == "relora" and bits:
        base_format = "nf4_dq" if bits == FOUR_BITS else "llm_int8"
    return name, base_format


def adapter_data(told: ConfigValues) -> dict[str, Any] | None:
    """The adapter in the form of PEFT's `adapter_config.json`; None if no file describes one."""
    given: Mapping[str, Any] | None = told.get("adapter_config")
    fields = told.under("lora.")
    if given is None and not fields and told.get("method") in (None, "full", "pretrain"):
        return None
    return {"peft_type": "LORA", **(given or {}), **fields}
