"""Reading the parts of a recipe's file that are not single values: lists of names, groups of numbers, numbers by
name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from graphsim.errors import choices_text
from graphsim.files.reading import Fields
from graphsim.lora.sources import place, read_numbers
from graphsim.units import short

_Part = TypeVar("_Part", bound=Any)


def read_names(
    fields: Fields, key: str, base: tuple[str, ...], choices: Collection[str], sources: dict[str, str]
) -> tuple[str, ...]:
    """A list of names, each one of `choices`; those of the base if the file gives none."""
    at, where = place(fields, key, sources)
    listed = at.sequence(where)
    for name in listed:
        if name not in choices:
            at.problems.append(f"{at.name(where)}: {short(name)} is not known; {choices_text(name, choices)}")
    return tuple(str(name) for name in listed) if where in at else base


def read_by_name(
    fields: Fields,
    key: str,
    base: Mapping[str, float],
    choices: Collection[str],
    sources: dict[str, str],
    *,
    kind: str = "",
) -> dict[str, float]:
    """Numbers by name, over those of the base; a `source` among them is put into `sources`.

    kind: their unit
    """
    nested = fields.mapping(key)
    note_source(nested, key, sources)
    found = {name: nested.number(name, None, kind=kind, most=1.0) for name in choices}
    return {**base} | {name: number for name, number in found.items() if number is not None}


def read_part(
    fields: Fields, key: str, base: _Part, known: Mapping[str, tuple[str, float, float]], sources: dict[str, str]
) -> _Part:
    """A dataclass of numbers over that of the base; a `source` among them is put into `sources`."""
    nested = fields.mapping(key)
    note_source(nested, key, sources)
    return replace(base, **read_numbers(nested, known, base, {}))


def read_changes(
    fields: Fields, key: str, known: Mapping[str, tuple[str, ...]], sources: dict[str, str]
) -> dict[str, Any]:
    """Fields that a group gives other values: texts with their allowed values, flags otherwise."""
    nested = fields.mapping(key)
    note_source(nested, key, sources)
    found = {
        name: nested.text(name, None, words) if words else nested.flag(name, None) for name, words in known.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def note_source(nested: Fields, key: str, sources: dict[str, str]) -> None:
    """Move the `source` among a group's values into `sources`."""
    source = nested.text("source", None)
    if source:
        sources[key] = source
