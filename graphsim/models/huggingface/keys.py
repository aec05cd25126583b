"""Accounts for every key of a config: it is read, known to have no effect, named in a note, or an error.

An unread key whose name and value suggest that it shapes layers (a size, a count, a ratio, a pattern, a switch) is an
error, because wrong sizes that result from ignoring it would go unnoticed.
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
"""Value of `ignore` that stands for all unread keys."""


def account(fields: Fields, given: Mapping[str, Any], ignore: Collection[str] = ()) -> tuple[str, ...]:
    """Notes on the keys of a config that no reader uses; those that shape layers are problems of `fields`.

    given: the config itself, without defaults; mappings in it that were read are checked as well
    ignore: keys to ignore, or `all`
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
                f"{path} = {short(value)} is not supported, and its name suggests that it shapes the model; "
                f"load_model(…, ignore=['{key}']) or --ignore {key} ignores it"
            )
    unread = (f"not read: {', '.join(notes)}",) if notes else ()
    beside = f"layers that predict further tokens are left out; only speculation runs them: {', '.join(drafts)}"
    return (*unread, beside) if drafts else unread


def _unread(given: Mapping[str, Any], path: str, readers: Mapping[str, list[Fields]]) -> Iterator[tuple[str, str, Any]]:
    """Path, name and value of each key that no reader of its mapping has read."""
    for key, value in given.items():
        inside = f"{path}.{key}" if path else str(key)
        if key in NESTED:
            continue
        if isinstance(value, Mapping) and inside in readers:
            yield from _unread(value, inside, readers)
        elif not _silent(str(key), value) and not any(reader.asked(key) for reader in readers[path]):
            yield inside, str(key), value


def _silent(key: str, value: Any) -> bool:
    """Whether a key does not affect the structure."""
    if key in NEUTRAL:
        return not (isinstance(value, str) and value in _LEARNED)
    return value is None or key.startswith("_") or (key in SILENT_OFF and not value)


NESTED = ("text_config", "quantization_config", "compression_config", "generation_config")
"""Mappings that are read separately."""

_LEARNED = ("xielu", "prelu")
"""Activations with weights (transformers 5.24), which a family that does not read the activation would omit."""


def shapes_layers(key: str, value: Any) -> bool:
    """Whether an unknown key seems to shape layers, by the words in its name, unless it is off."""
    if isinstance(value, str) and value in _LEARNED:
        return True
    if value is False or value in (0, "", None) or value == [] or value == {}:
        return False
    if isinstance(value, Mapping) and any(_shapes_inside(str(inner), held) for inner, held in value.items()):
        return True
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().split("_")
    return not SHAPING_WORDS.isdisjoint(re.sub(r"\d+$", "", word) for word in words)


def _shapes_inside(key: str, value: Any) -> bool:
    """Whether a key within an unknown mapping, such as a tower's config, seems to shape layers."""
    return key not in NEUTRAL and not _silent(key, value) and shapes_layers(key, value)
