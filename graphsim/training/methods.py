"""Methods of training by name: the trained weights, the base's format, and the variant of LoRA or the optimizer.

Every variant of `LoraConfig` is a method of that name too: `dora`, `vera`, `ia3`, …
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.reading import Fields, load_mapping
from graphsim.lora.variants import known
from graphsim.ops.base import BF16
from graphsim.ops.formats import Format
from graphsim.ops.precision import Precision
from graphsim.training.setup import Method
from graphsim.units import short

UNSCALED = ("lora",)
"""Variants that are the method `lora` itself."""


COURSE = ("relora_every", "warm_start_steps", "rewarm_steps", "pruned")
"""Arguments of `fine_tune_plan` for which a method may have values of its own."""


def list_methods() -> list[str]:
    """Names of the training methods, including variants of LoRA."""
    return sorted({*_known()[0], *(name for name in known() if name not in UNSCALED)})


def load_method(name: str | Method, upcasts: bool | None = None) -> Method:
    """A method by its name, in any usual spelling.

    upcasts: whether the recipe converts unquantised weights to fp32 if the base is quantised; by default as in the
        method
    Raises ConfigError naming what was found and what is allowed.
    """
    found = name if isinstance(name, Method) else _named(name)
    return found if upcasts is None else replace(found, upcasts=upcasts and bool(found.base_format))


def stored_only(precision: Precision) -> list[Format]:
    """Storage-only formats of weights, or integer ones, which an optimizer step cannot change."""
    return [
        own for own in precision.of_weights
        if own.bytes < BF16.bytes and (not own.compute or own.compute.startswith("int"))
    ]  # fmt: skip


def _named(name: Any) -> Method:
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"method = {short(name)} is not allowed; expected one of {', '.join(list_methods())}")
    text = "-".join(name.strip().lower().replace("_", " ").replace("-", " ").split())
    methods, aliases = _known()
    text = aliases.get(text, text)
    if text in methods:
        return methods[text]
    if text in known():
        return replace(methods["lora"], name=text, variant=text)
    raise ConfigError(f"method = {short(name)} is not known; {choices_text(text, list_methods())}")


def _known() -> tuple[dict[str, Method], dict[str, str]]:
    path = Path(__file__).parent / "methods.yaml"
    return _from_file(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _from_file(path: Path, _modified: int) -> tuple[dict[str, Method], dict[str, str]]:
    entries = Fields(load_mapping(path), str(path))
    methods: dict[str, Method] = {}
    aliases: dict[str, str] = {}
    for name in entries.keys():  # noqa: SIM118 - Fields is not a mapping
        entry = entries.mapping(name)
        flags = {key: entry.flag(key, False) for key in ("upcasts", "others", "merges")}
        texts = {key: entry.text(key, "") for key in ("base_format", "variant", "optimizer", "source")}
        course = entry.mapping("course")
        settings = {key: value for key in COURSE if (value := course.number(key, None)) is not None}
        base, adapters = entry.flag("base"), entry.flag("adapters")
        methods[name] = Method(name=name, base=base, adapters=adapters, course=settings, **flags, **texts)
        aliases |= {str(alias): name for alias in entry.sequence("aliases")}
    entries.finish()
    return methods, aliases
