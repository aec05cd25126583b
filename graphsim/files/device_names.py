"""Resolving common names of devices: `H100`, `NVIDIA A100-SXM4-80GB` and `8x MI300X` refer to files of the catalog.

Words that do not distinguish devices are ignored, as are case, spaces and hyphens; `hardware/names.json` lists these
words and the usual meaning of ambiguous names. A memory size selects among the devices of a name; if none has this
size, the name is unknown. In a typed name, every word must be recognised; a table's description of its hardware may
contain further words that name no other device. For devices without a file, the table lists the most similar ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from graphsim.errors import ConfigError
from graphsim.files.catalog import folders, list_names
from graphsim.files.reading import load_mapping

HasMemory = Callable[[str, float], bool]
"""Whether the device in the file of this name has this memory size in GB."""

LONGEST = 200
"""Maximum length of a device's name in characters."""

_COUNT = re.compile(r"^\s*(\d+)\s*[x*×]\s*(?=[a-z]|\d{4}\b)")
_COUNT_BEHIND = re.compile(r"\(\s*x\s*(\d+)\s*\)|\s[x*×]\s*(\d+)\s*$")
_SLICE = re.compile(r"\b(v\d\w*)-\d+\s*$")  # v5litepod-8: Google's name for a slice of a pod
_REMARK = re.compile(r"\(([^()]*)\)")
_MEMORY = re.compile(r"\b(\d+)\s*g(?:i?b)?\b")
_LEFT_OUT = re.compile(r"(?:hbm|gddr|lpddr)\d?\w*|blackwell ultra")
_FORM = re.compile(r"sxm\d?\b")
_WORD = re.compile(r"[a-z0-9.]+")
_FAMILIES = ("rtx", "tpu", "arc", "jetson")  # words that are often omitted from a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The table of names: `usual` and `absent`, keyed by names without separators, and the words that are ignored."""

    usual: Mapping[str, tuple[str, ...]]
    absent: Mapping[str, tuple[str, ...]]
    left_out: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The device that a text names: its name in the catalog, and the number of devices if the text states it."""

    name: str
    count: int | None = None


def typed_device(text: str, has_memory: HasMemory) -> str | None:
    """The catalog's name for a device name typed by a user; None if a word is not recognised."""
    return _device(text, has_memory, whole=True)


def described_device(text: str, has_memory: HasMemory) -> Described | None:
    """The device that a text from a table or log describes, with the number of devices; None for none or several."""
    name = _device(text, has_memory, whole=False)
    found = _COUNT.match(text.lower()) or _COUNT_BEHIND.search(text.lower())
    count = next((int(digits) for digits in found.groups() if digits), None) if found else None
    return Described(name=name, count=count) if name else None


def nearest_devices(text: str) -> tuple[str, ...]:
    """Devices similar to one without a file: the same name with another memory size, or the most similar names."""
    if len(text) > LONGEST:
        return ()
    names, plain = _names(), _REMARK.sub(" ", _plain(text))
    known, shipped = _known(names), list_names("hardware")
    for words in (_words(plain, names), _words(_MEMORY.sub(" ", plain), names)):
        near = tuple(name for name in _absent(words, names) if name in shipped) or known.get("".join(words), ())
        if near:
            return near
    return ()


def _device(text: str, has_memory: HasMemory, *, whole: bool) -> str | None:
    if len(text) > LONGEST:
        return None
    plain = _plain(text)
    outside, remarks = _REMARK.sub(" ", plain), _REMARK.findall(plain)
    names = _names()
    if _words(outside, names):
        return _named(outside, names, has_memory, whole=whole)
    return next((name for part in remarks if (name := _named(part, names, has_memory, whole=whole))), None)


def _plain(text: str) -> str:
    """A text in lower case without a device count before or after the name."""
    plain = re.sub(r"\((?:r|tm)\)", " ", text.lower().replace("_", " "))
    return _SLICE.sub(r"\1", _COUNT_BEHIND.sub(" ", _COUNT.sub("", plain)))


def _named(text: str, names: Names, has_memory: HasMemory, *, whole: bool) -> str | None:
    """The device that a text names; None if there is none.

    whole: whether every word must be recognised, or only the first ones
    """
    known = _known(names)
    sizes = [float(size) for size in _MEMORY.findall(text)]
    with_sizes, words = _words(text, names), _words(_MEMORY.sub(" ", text), names)
    if "".join(with_sizes) in known:  # the size is a part of this name
        return known["".join(with_sizes)][0]
    for last in range(len(words), 0 if not whole else len(words) - 1, -1):
        devices = known.get("".join(words[:last]))
        if devices:
            others = {name for word in words[last:] for name in known.get(word, ())} - set(devices)
            fitting = (name for name in devices if all(has_memory(name, size) for size in sizes))
            return None if others else next(fitting, None)
        if _absent(words[:last], names):
            return None
    return None


def _absent(words: list[str], names: Names) -> tuple[str, ...]:
    """The files most similar to a device without a file, looked up with and without the family's name."""
    shorter = words[1:] if words and words[0] in _FAMILIES else words
    return names.absent.get("".join(words)) or names.absent.get("".join(shorter)) or ()


def _words(text: str, names: Names) -> list[str]:
    words = _WORD.findall(_LEFT_OUT.sub(" ", _FORM.sub("sxm", text)))
    return [word for word in words if word not in names.left_out]


def _known(names: Names) -> dict[str, tuple[str, ...]]:
    return _table(tuple(list_names("hardware")), tuple(names.usual.items()))


@lru_cache(maxsize=16)
def _table(stems: tuple[str, ...], usual: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, tuple[str, ...]]:
    """Devices by name without separators: file names with and without a memory size, and the `usual` names."""
    found: dict[str, tuple[str, ...]] = {}
    for stem in stems:
        text = stem.lower().replace("_", "-")
        for part in (text, _MEMORY.sub("", text)):
            key = "".join(_WORD.findall(_FORM.sub("sxm", part)))
            found[key] = tuple(dict.fromkeys([*found.get(key, ()), stem]))
    return found | {key: known for key, listed in usual if (known := tuple(n for n in listed if n in stems))}


def _names() -> Names:
    paths = (folder / "names.json" for folder in folders("hardware"))
    found = next((path for path in paths if path.is_file()), None)
    return _read(found, found.stat().st_mtime_ns) if found else Names(usual={}, absent={}, left_out=frozenset())


@lru_cache(maxsize=8)
def _read(path: Path, _modified: int) -> Names:
    data = load_mapping(path)
    try:
        left_out = frozenset(str(word) for word in data["left_out"])
        usual, absent = (
            {_run_together(key): tuple(map(str, _listed(names))) for key, names in table.items()}
            for table in (data["usual"], data.get("absent", {}))
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: needs the list 'left_out' and the mapping 'usual' of lists, as 'absent' is ({error})"
        ) from None
    return Names(usual=usual, absent=absent, left_out=left_out)


def _listed(names: Iterable[str]) -> Iterable[str]:
    if isinstance(names, str):
        raise TypeError(f"'{names}' is not a list")
    return names


def _run_together(text: str) -> str:
    return "".join(_WORD.findall(text.lower()))
