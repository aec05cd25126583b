"""What a person's name for a device means: `H100`, `NVIDIA A100-SXM4-80GB` and `8x MI300X` name files of the catalog.

Words that tell no device from another do not count, nor do case, spaces and hyphens; `hardware/names.json` lists them,
and what an ambiguous name usually means. A size of memory chooses among a name's devices: no file of that size, no
device. A text typed as a name must be explained to its last word; of what a table says of its hardware, remarks may be
left over, as long as they name no other device. Of devices without a file the table says which come nearest.
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
"""Whether the device of a file, by its name, is one of this many GB."""

LONGEST = 200
"""Characters of the longest text that is read as a device's name."""

_COUNT = re.compile(r"^\s*(\d+)\s*[x*×]\s*(?=[a-z]|\d{4}\b)")
_COUNT_BEHIND = re.compile(r"\(\s*x\s*(\d+)\s*\)|\s[x*×]\s*(\d+)\s*$")
_SLICE = re.compile(r"\b(v\d\w*)-\d+\s*$")  # v5litepod-8: Google's name for a slice of a pod
_REMARK = re.compile(r"\(([^()]*)\)")
_MEMORY = re.compile(r"\b(\d+)\s*g(?:i?b)?\b")
_LEFT_OUT = re.compile(r"(?:hbm|gddr|lpddr)\d?\w*|blackwell ultra")
_FORM = re.compile(r"sxm\d?\b")
_WORD = re.compile(r"[a-z0-9.]+")
_FAMILIES = ("rtx", "tpu", "arc", "jetson")  # a word of the name that people leave out


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The table of names: `usual` and `absent` by their words run together, and the words that are left out."""

    usual: Mapping[str, tuple[str, ...]]
    absent: Mapping[str, tuple[str, ...]]
    left_out: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The device that a text names: a name of the catalog, and how many of them where the text says so."""

    name: str
    count: int | None = None


def typed_device(text: str, has_memory: HasMemory) -> str | None:
    """The catalog's name for a device as somebody types it; None if a word is left that explains nothing."""
    return _device(text, has_memory, whole=True)


def described_device(text: str, has_memory: HasMemory) -> Described | None:
    """The device of which a table's or a log's text speaks, with its count; None for none, or several."""
    name = _device(text, has_memory, whole=False)
    found = _COUNT.match(text.lower()) or _COUNT_BEHIND.search(text.lower())
    count = next((int(digits) for digits in found.groups() if digits), None) if found else None
    return Described(name=name, count=count) if name else None


def nearest_devices(text: str) -> tuple[str, ...]:
    """Similar devices for one without a file: the same name with another memory size, or the most similar names."""
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
    """A text in small letters without a count, before or behind the name."""
    plain = re.sub(r"\((?:r|tm)\)", " ", text.lower().replace("_", " "))
    return _SLICE.sub(r"\1", _COUNT_BEHIND.sub(" ", _COUNT.sub("", plain)))


def _named(text: str, names: Names, has_memory: HasMemory, *, whole: bool) -> str | None:
    """The device that words name, or that the first of them name if the text need not be explained wholly."""
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
    """The files nearest to a device that has none, by its words with or without the family's."""
    shorter = words[1:] if words and words[0] in _FAMILIES else words
    return names.absent.get("".join(words)) or names.absent.get("".join(shorter)) or ()


def _words(text: str, names: Names) -> list[str]:
    words = _WORD.findall(_LEFT_OUT.sub(" ", _FORM.sub("sxm", text)))
    return [word for word in words if word not in names.left_out]


def _known(names: Names) -> dict[str, tuple[str, ...]]:
    return _table(tuple(list_names("hardware")), tuple(names.usual.items()))


@lru_cache(maxsize=16)
def _table(stems: tuple[str, ...], usual: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, tuple[str, ...]]:
    """Devices by their words run together: files by their names, with and without a size of memory, and `usual`."""
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
        raise TypeError(f"'{names}' is no list")
    return names


def _run_together(text: str) -> str:
    return "".join(_WORD.findall(text.lower()))
