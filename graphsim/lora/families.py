"""Families of models as named by an engine's profile: by the first word of their models' names.

Engines decide by the class that runs a model; a model's description has only its name.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphsim.files.reading import Fields


def is_one_of(model: str, families: Iterable[str]) -> bool:
    """Whether a model's name starts with the word of a family, in any spelling: `gpt-oss-20b`, `gpt_oss`."""
    named = f"{_plain(model)}-"
    return any(named.startswith(f"{_plain(family)}-") for family in families)


def _plain(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower().replace("_", "-").replace(".", "-")


def read_families(fields: Fields, key: str, kept: Iterable[str]) -> tuple[str, ...]:
    """The families listed below `key`, or those inherited from a base if the profile states none.

    A list of anything other than names is noted as a problem in `fields`.
    """
    if key not in fields:
        fields.raw(key)
        return tuple(kept)
    entries = fields.sequence(key, most=1000)
    if not all(isinstance(entry, str) and entry for entry in entries):
        fields.problem(key, "is not allowed; expected a list of names")
    return tuple(str(entry) for entry in entries)
