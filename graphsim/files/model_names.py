"""Resolving common names of models: `LLAMA3_70B`, `Qwen/Qwen3-32B` and `Llama-2-7b-chat-hf` refer to catalog files.

A file is found by its own name, by its `aliases` and by the `ids` under which the model is published. Case, spaces,
hyphens, underscores and endings such as `-Instruct` are ignored; an additional digit is not. An organisation's id is
accepted only if the file lists an id of that organisation, or if the organisation publishes unchanged copies of other
models (`mirrors` in `models/names.json`). A name may be followed by a modification: `cut to 4 layers`, a remark in
parentheses, the format to which its weights were quantised. `absent` gives the reasons for names without a file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from graphsim.errors import ConfigError
from graphsim.files.catalog import MODELS, folders, list_files
from graphsim.files.reading import load_mapping
from graphsim.files.strict_yaml import parse as parse_yaml
from graphsim.units import short

LONGEST = 200
"""Maximum length of a model's name in characters."""

_ENDINGS = re.compile(r"-(hf|instruct|chat|it)$")
_NAME = re.compile(r"[A-Za-z0-9_ .+:-]+")
_ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)/([A-Za-z0-9_.-]+)")
_CONFIG_FILE = re.compile(r"([A-Za-z0-9_.-]+?)--([A-Za-z0-9_.-]+)_config\.json")
_CUT = re.compile(r"(.+?) cut to (\d{1,5}) layers?", re.IGNORECASE)
_REMARK = re.compile(r"(.+?)\s*\(([^()]*)\)")
_ADDS = re.compile(r"\d|=|\bwith\b|\bw/(?!o)", re.IGNORECASE)
_LISTS = re.compile(r"^(?:aliases|ids)[ \t]*:.*(?:\n(?:[ \t-].*|[ \t]*)$)*", re.MULTILINE)
_PLAIN_LIST = re.compile(r"(aliases|ids): \[([^\[\]{}\"'#:]*)\]")
_PLAIN_TEXT = re.compile(r"[A-Za-z][\w .+]*[-/][\w ./+-]*")
_LISTED_ANYWHERE = re.compile(r"""["']?\b(?:aliases|ids)["']?\s*:""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """The model that a text names.

    name: name in the catalog
    layers: number of layers to which it is cut; 0 for all
    precision: precision of the quantised checkpoint that the text names; "" for that in the catalog's file
    dense: whether that precision is known only for models without experts
    """

    name: str
    layers: int = 0
    precision: str = ""
    dense: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The table of names stored with the model files.

    mirrors: organisations that publish unchanged copies of other models
    formats: precision by name ending of quantised models
    quantised: individual quantised models, each with the catalog's name and the precision
    absent: reasons by name without a file; a name that ends with `*` matches all names with this beginning
    """

    mirrors: frozenset[str] = frozenset()
    formats: Mapping[str, str] = field(default_factory=dict)
    quantised: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def named_model(text: str) -> NamedModel | None:
    """The model of the catalog that a text names; None if there is none.

    Raises ConfigError for an ambiguous name.
    """
    text = text.strip()
    if not text or len(text) > LONGEST:
        return None
    if cut := _CUT.fullmatch(text):
        found = named_model(cut[1])
        return replace(found, layers=int(cut[2])) if found and int(cut[2]) and not found.layers else None
    if config := _CONFIG_FILE.fullmatch(text):
        return named_model(f"{config[1]}/{config[2]}")
    found = _plainly_named(text)
    if found is None and (remark := _REMARK.fullmatch(text)) and not _ADDS.search(remark[2]):
        return named_model(remark[1])
    return found


def absent_reason(text: str) -> str:
    """The reason why a name has no file in the catalog; "" if unknown."""
    plain = " ".join(text.lower().split())
    absent = _names().absent
    starts = (reason for name, reason in absent.items() if name.endswith("*") and plain.startswith(name[:-1]))
    return absent.get(plain) or next(starts, "")


def is_id(text: str) -> bool:
    """Whether a text has the form of a Hugging Face id, `organisation/model`."""
    return bool(_ID.fullmatch(text))


def near_names(text: str, most: int = 3) -> list[str]:
    """Names of the catalog that are similar to a text, `most` at most."""
    wanted, table = spelling(text), _table()
    near = difflib.get_close_matches(wanted, table.by_spelling, n=most, cutoff=0.6)
    return list(dict.fromkeys(name for found in near for name in sorted(table.by_spelling[found])))[:most]


def spelling(name: str) -> str:
    """A normalised name: without organisation, case, hyphens, `meta-`, `-hf`, `-instruct` and `-chat`."""
    text = re.sub(r"[_ ]", "-", name.rsplit("/", 1)[-1].lower()).removeprefix("meta-")
    while (cut := _ENDINGS.sub("", text)) != text:
        text = cut
    return re.sub(r"(?<=\d)-(?=\d)", "/", "-".join(re.findall(r"[a-z]+|\d+", text))).replace("-", "")


def _plainly_named(text: str) -> NamedModel | None:
    """The model with this id or name, optionally followed by a quantisation format; None if there is none."""
    names = _names()
    if known := names.quantised.get(text.lower()):
        return NamedModel(name=known[0], precision=known[1])
    if name := _file_of(text, names):
        return NamedModel(name=name)
    if absent_reason(text):
        return None
    for ending, precision in names.formats.items():
        base = re.sub(rf"[-_ ]{ending}$", "", text, flags=re.IGNORECASE)
        if base != text and (name := _file_of(base, names)):
            return NamedModel(name=name, precision=precision, dense=True)
    return None


def _file_of(text: str, names: Names) -> str | None:
    """The catalog's name for a Hugging Face id or a name in any spelling; None if there is none."""
    table = _table()
    if exact := table.by_id.get(text.lower()):
        return _only(text, exact)
    organisation = ""
    if given := _ID.fullmatch(text):
        organisation, text = given[1].lower(), given[2]
    if not _NAME.fullmatch(text):
        return None
    homes = table.by_spelling.get(spelling(text), frozenset())
    if organisation and organisation not in names.mirrors:
        homes = frozenset(name for name in homes if organisation in table.makers[name])
    return _only(text, homes) if homes else None


def _only(text: str, homes: frozenset[str]) -> str:
    if len(homes) > 1:
        listed = ", ".join(sorted(homes))
        raise ConfigError(f"model {short(text)} is the alias of several models; allowed: {listed}")
    return next(iter(homes))


@dataclass(frozen=True, slots=True)
class _Table:
    """Files by id and by normalised name, and the organisations that publish each."""

    by_id: dict[str, frozenset[str]] = field(default_factory=dict)
    by_spelling: dict[str, frozenset[str]] = field(default_factory=dict)
    makers: dict[str, frozenset[str]] = field(default_factory=dict)


def _table() -> _Table:
    paths = list_files(MODELS)
    return _indexed(tuple((name, path, os.stat(path).st_mtime_ns) for name, path in paths.items()))  # noqa: PTH116


@lru_cache(maxsize=4)
def _indexed(files: tuple[tuple[str, str, int], ...]) -> _Table:
    table = _Table()
    for name, path, modified in files:
        others = _other_names(path, modified)
        table.makers[name] = frozenset(other.rsplit("/", 1)[0].lower() for other in others if "/" in other)
        for other in (name, *others):
            if "/" in other:
                table.by_id[other.lower()] = table.by_id.get(other.lower(), frozenset()) | {name}
            key = spelling(other)
            table.by_spelling[key] = table.by_spelling.get(key, frozenset()) | {name}
    return table


@lru_cache(maxsize=1024)
def _other_names(file: str, _modified: int) -> tuple[str, ...]:
    """A file's `aliases` and `ids`; empty for an invalid file, which is reported when it is loaded by name."""
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8-sig")
        lists = _LISTS.findall(text)
        if lists:
            return tuple(entry for each in lists for entry in _listed(each))
        return tuple(_texts(load_mapping(path))) if _LISTED_ANYWHERE.search(text) else ()
    except (ConfigError, OSError, ValueError):
        return ()


def _listed(text: str) -> list[str]:
    """The texts in one list. Plain lists are split here, which takes 3 ms for a catalog; the parser takes 30 ms."""
    if plain := _PLAIN_LIST.fullmatch(text.strip()):
        entries = [" ".join(entry.split()) for entry in plain[2].split(",")]
        if all(_PLAIN_TEXT.fullmatch(entry) for entry in entries):
            return entries
    data = parse_yaml(text)
    return list(_texts(data)) if isinstance(data, Mapping) else []


def _texts(data: Mapping[str, object]) -> Iterator[str]:
    for key in ("aliases", "ids"):
        listed = data.get(key)
        if isinstance(listed, list):
            yield from (entry for entry in listed if isinstance(entry, str))


def _names() -> Names:
    paths = (folder / "names.json" for folder in folders(MODELS))
    found = next((path for path in paths if path.is_file()), None)
    return _read(found, found.stat().st_mtime_ns) if found else Names()


@lru_cache(maxsize=8)
def _read(path: Path, _modified: int) -> Names:
    data = load_mapping(path)
    try:
        return Names(
            mirrors=frozenset(str(name).lower() for name in data.get("mirrors", [])),
            formats={str(ending): str(precision) for ending, precision in data.get("formats", {}).items()},
            quantised={
                str(name).lower(): (str(entry["model"]), str(entry["precision"]))
                for name, entry in data.get("quantised", {}).items()
            },
            absent={
                " ".join(str(name).lower().split()): str(reason)
                for reason, listed in data.get("absent", {}).items()
                for name in listed
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: needs the list 'mirrors' and the mappings 'formats', 'quantised' and 'absent' ({error})"
        ) from None
