"""No key of a config vanishes: a reader asks for it, it is known to change nothing, a note names it, or it refuses.

An unread key whose name and value say that it shapes layers (a size, a count, a ratio, a pattern, a switch) refuses the
config: a count that is wrong by it would look like any other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.huggingface.known_keys import DRAFTS, NEUTRAL, SHAPING_WORDS, SILENT_OFF
from graphsim.units import short

EVERYTHING = "all"
"""In place of keys to ignore: whatever is not read."""


def account(fields: Fields, given: Mapping[str, Any], ignore: Collection[str] = ()) -> tuple[str, ...]:
    """Notes on the keys that a config holds and nobody has asked for; those that shape layers are problems of `fields`.

    given: the keys of the config itself, without what was assumed; mappings that were read below it are looked into
    ignore: keys to go on without, or `all`
    """
    found = [(key, key, value) for key, value in _unread(fields, given)]
    for nested in fields.below():
        if not nested.path.startswith("quantization_config"):
            found += [(key, f"{nested.path}.{key}".lstrip("."), value) for key, value in _unread(nested, nested.data)]
    notes, drafts = [], []
    for key, path, value in found:
        if key in DRAFTS:
            drafts.extend([path] if value else [])
        elif ignore and not {key, path, EVERYTHING}.isdisjoint(ignore) or not shapes_layers(key, value):
            notes.append(f"{path} = {short(value)}")
        else:
            fields.problems.append(
                f"{path} = {short(value)} is not read, and by its name it shapes the model; "
                f"load_model(…, ignore=['{key}']) or --ignore {key} goes on without it"
            )
    unread = (f"not read: {', '.join(notes)}",) if notes else ()
    beside = f"left out: layers that predict further tokens ({', '.join(drafts)}), which no step without speculation runs"
    return (*unread, beside) if drafts else unread


NESTED = ("text_config", "quantization_config", "generation_config")
"""Mappings that are read by rules of their own."""

_LEARNED = ("xielu", "prelu")
"""Activations that have weights (transformers 5.24): a family that does not ask which it is would leave them out."""


def _unread(fields: Fields, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if str(key).endswith(NESTED) and isinstance(value, Mapping):
            continue  # what is below it is looked into, where it is read at all
        neutral = key in NEUTRAL and not (isinstance(value, str) and value in _LEARNED)
        silent = value is None or str(key).startswith("_") or neutral or (key in SILENT_OFF and not value)
        if not silent and fields.is_idle(key):
            yield str(key), value


def shapes_layers(key: str, value: Any) -> bool:
    """Whether a key that no reader knows looks as if it shaped layers: by the words in its name, unless it is off."""
    if isinstance(value, str) and value in _LEARNED:
        return True
    if value is False or value in (0, "", None) or value == [] or value == {}:
        return False
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().split("_")
    return not SHAPING_WORDS.isdisjoint(re.sub(r"\d+$", "", word) for word in words)
