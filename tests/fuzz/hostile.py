"""Values, texts and changes that break what is not careful."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 0.5, -0.0, 1e-320, 1e30, 1e308, float("nan"), float("inf"), -float("inf"),
    10**30, 2**63, 10**400, "", " ", "x", "12", "1e3", "auto", "none", "a\nb", "\0", "\ud800", "<script>",
    "../../etc/passwd", "x" * 300, [], [1], [None], [[]], [1, "a", None], {}, {"value": 1},
    {"": None}, {"$op": []}, {"$float": "nan"},
)  # fmt: skip
"""What a field may be replaced with; all of them are values that JSON and YAML can carry."""

NAMES = ("", " ", "id", "op", "$op", "<b>", "a\nb", "é", "name", "rank", "x" * 300)

PIECES = (
    "\n", "\n\n", ",", '"', "'", "{", "}", "[", "]", ":", ": ", "- ", "#", "&a", "*a", "!!python/object:os.system",
    "\0",
    "\ufeff", "\t", "\r", " ", "-1", "0", "1e999", "nan", ".nan", ".inf", "NaN", "Infinity", "null", "~", "true", "é",
    "🦙", "999999999999999999999999", "0x10", "1_000", "GB", "\\", "%", "---\n", "...\n", "<<: ",
)  # fmt: skip


def changed(document: Any, rng: random.Random, values: tuple[Any, ...] = VALUES) -> Any:
    """A copy of a JSON-like document in which one to three places are something else, gone, doubled or renamed."""
    found = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(found))
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.6:
            holder[key] = copy.deepcopy(rng.choice(values))
        elif kind < 0.7:
            holder[key] = copy.deepcopy(rng.choice(places)[0])
        elif kind < 0.8 and isinstance(holder, list):
            holder.insert(rng.randint(0, len(holder)), copy.deepcopy(rng.choice(holder)))
        elif kind < 0.9 and isinstance(holder, dict):
            holder[rng.choice(NAMES)] = holder.pop(key)
        else:
            del holder[key]
    return found


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from _places(data[key])


def spoilt(text: str, rng: random.Random, pieces: tuple[str, ...] = PIECES) -> bytes:
    """A file's text with pieces put in, cut out or doubled, cut short, or with a byte that is no text."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        end = at + rng.choice((0, 0, 1, 2, 5, 40, 200))
        kind = rng.random()
        if kind < 0.6:
            text = text[:at] + rng.choice(pieces) + text[end:]
        elif kind < 0.75:
            text = text[:at] + text[end:]
        elif kind < 0.85:
            text = text[:end] + text[at:]
        elif kind < 0.95:
            lines = text.split("\n")
            one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[one], lines[two] = lines[two], lines[one]
            text = "\n".join(lines)
        else:
            text = text[:at]
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        at = rng.randint(0, len(content))
        content = content[:at] + bytes([rng.choice((0x00, 0x80, 0xC3, 0xFF))]) + content[at:]
    return content
