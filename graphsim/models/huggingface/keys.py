"""No key of a config vanishes: a reader asks for it, it is known to change nothing, a note names it, or it refuses.

An unread key whose name and value say that it shapes layers (a size, a count, a ratio, a pattern, a switch) refuses the
config: a count that is wrong by it would look like any other.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.huggingface.known_keys import DRAFTS, NEUTRAL, SHAPING_WORDS, SILENT_OFF
from graphsim.units import short

EVERYTHING = "all"
"""In place of keys to ignore: whatever is not read."""


def account(fields: Fields, given: Mapping[str, Any], ignore: Collection[str] = ()) -> tuple[str, ...]:
    """Notes on the keys that a config has and no reader uses; those that shape layers are problems of `fields`.

    given: the config itself, without what was assumed; mappings in it that were read are looked into
    ignore: keys to go on without, or `all`
    """
    if fields.problems:
        return ()
    readers = defaultdict(list, {fields.path: [fields]})
    for nested in fields.below():
        readers[nested.path].append(nested)
    notes, drafts = [], []
    for path, key, value in _unread(given, fields.path, readers):
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
    beside = f"layers that predict further tokens are left out; only speculation runs them: {', '.join(drafts)}"
    return (*unread, beside) if drafts else unread


def _unread(given: Mapping[str, Any], path: str, readers: Mapping[str, list[Fields]]) -> Iterator[tuple[str, str, Any]]:
    """Path, name and value of each key that none of the readers of its mapping has asked for."""
    for key, value in given.items():
        inside = f"{path}.{key}" if path else str(key)
        if key in NESTED:
            continue
        if isinstance(value, Mapping) and inside in readers:
            yield from _unread(value, inside, readers)
        elif not _silent(str(key), value) and not any(reader.asked(key) for reader in readers[path]):
            yield inside, str(key), value


def _silent(key: str, value: Any) -> bool:
    """Whether a key says nothing about the structure."""
    if key in NEUTRAL:
        return not (isinstance(value, str) and value in _LEARNED)
    return value is None or key.startswith("_") or (key in SILENT_OFF and not value)


NESTED = ("text_config", "quantization_config", "compression_config", "generation_config")
"""Mappings that are read by rules of their own."""

_LEARNED = ("xielu", "prelu")
"""Activations that have weights (transformers 5.24): a family that does not ask which it is would leave them out."""


def shapes_layers(key: str, value: Any) -> bool:
    """Whether a key that no reader knows looks as if it shaped layers: by the words in its name, unless it is off."""
    if isinstance(value, str) and value in _LEARNED:
        return True
    if value is False or value in (0, "", None) or value == [] or value == {}:
        return False
    if isinstance(value, Mapping) and any(_shapes_inside(str(inner), held) for inner, held in value.items()):
        return True
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().split("_")
    return not SHAPING_WORDS.isdisjoint(re.sub(r"\d+$", "", word) for word in words)


def _shapes_inside(key: str, value: Any) -> bool:
    """Whether a key of a mapping that no reader knows, as a tower's config, says so."""
    return key not in NEUTRAL and not _silent(key, value) and shapes_layers(key, value)
