"""The sources of the fields of an engine's profile: its own, and those inherited from its base."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graphsim.errors import choices_text
from graphsim.files.reading import Fields

_INHERITED = "inherited from "


def inherited(sources: Mapping[str, str], base: str, own: Fields) -> dict[str, str]:
    """The sources of what a profile inherits from its base, naming the profile that first stated each of them.

    own: what the profile states; a field that it changes has its own source or none
    """
    return {
        key: text if text.startswith(_INHERITED) else f"{_INHERITED}{base}: {text}"
        for key, text in sources.items()
        if key not in own
    }


def read_sources(fields: Fields, known: Collection[str]) -> dict[str, str]:
    """The sources that a profile states, by field. The source of an unknown field is noted as a problem."""
    sources = fields.mapping("sources")
    for key in sources.keys():  # noqa: SIM118 - Fields is not a mapping
        if key not in known:
            sources.problem(key, f"is not a field that has a source; {choices_text(key, known)}")
    return {key: sources.text(key, "") or "" for key in sources.keys()}  # noqa: SIM118


def read_references(fields: Fields) -> dict[str, str]:
    """Documents by the short name with which a profile's sources begin."""
    references = fields.mapping("references")
    return {key: references.text(key, "") or "" for key in references.keys()}  # noqa: SIM118


def with_documents(sources: Mapping[str, str], references: Mapping[str, str]) -> dict[str, str]:
    """Sources with their first words expanded to documents; inherited ones are expanded already."""
    return {
        key: text if text.startswith(_INHERITED) else _with_document(text, references) for key, text in sources.items()
    }


def _with_document(text: str, references: Mapping[str, str]) -> str:
    name, separator, rest = text.partition(",")
    return f"{references.get(name.strip(), name.strip())}{separator}{rest}"


def place(fields: Fields, key: str, sources: dict[str, str]) -> tuple[Fields, str]:
    """The location of a group's value: below `key` as `value`, with its source moved into `sources`, or at `key`."""
    if not isinstance(fields.data.get(key), Mapping):
        return fields, key
    pair = fields.mapping(key)
    sources[key] = pair.text("source", "")
    return pair, "value"


def read_numbers(
    fields: Fields, known: Mapping[str, tuple[str, float, float]], base: Any, sources: dict[str, str]
) -> dict[str, Any]:
    """Numbers of a group over those of its base.

    known: the unit, least and most of each field
    """
    found = {}
    for key, (unit, least, most) in known.items():
        at, name = place(fields, key, sources)
        found[key] = at.number(name, getattr(base, key), kind=unit, least=least, most=most)
    return found


def read_flags(fields: Fields, known: Iterable[str], base: Any, sources: dict[str, str]) -> dict[str, Any]:
    """Fields of a group that are true or false, over those of its base."""
    found = {}
    for key in known:
        at, name = place(fields, key, sources)
        found[key] = at.flag(name, getattr(base, key))
    return found
