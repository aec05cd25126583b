"""The settings of all trainers' files, each value with its location."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphsim.files.reading import Fields
from graphsim.units import short

PACKED = "documents' lengths are not in the file: attention counts whole sequences; give squares"
PADDED = "sequences count at their greatest length: nothing packs them or pads them to it"


@dataclass(slots=True, kw_only=True)
class ConfigValues:
    """Values by name.

    values: arguments of `train`, `plan.NAME` of `fine_tune_plan`, `degree.NAME` of Parallelism, `lora.NAME` as PEFT's
        LoraConfig has it, `recipe`, and `recipe.NAME` of a Recipe's fields; places: location of each
    defaults: values used if no file states one
    files: names of the files that are read
    notes: what is left out
    problems: what is wrong
    unknown: unknown keys
    sources: the files, including those that others refer to
    sections: mappings of the files, and the formats whose keys they may have
    """

    values: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    sections: list[tuple[Source, tuple[str, ...]]] = field(default_factory=list)

    def tell(self, name: str, value: Any, place: str) -> None:
        """Set a value; None has no effect. Contradicting values are a problem."""
        if value is None:
            return
        if name in self.values and self.values[name] != value:
            before = f"{self.places[name]} = {short(self.values[name])}"
            self.problems.append(f"{place} = {short(value)} contradicts {before}; expected one of them")
            return
        self.values[name] = value
        self.places[name] = place

    def suppose(self, name: str, value: Any) -> None:
        """Set a default of the trainer, used if no file states a value."""
        if value is not None:
            self.defaults.setdefault(name, value)

    def add(self, name: str, value: str) -> None:
        """Add to a list."""
        self.values[name] = tuple(dict.fromkeys((*self.values.get(name, ()), value)))

    def get(self, name: str, default: Any = None) -> Any:
        """A stated value, or its default."""
        return self.values.get(name, self.defaults.get(name, default))

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def under(self, prefix: str) -> dict[str, Any]:
        """The values whose names begin with a prefix, without it."""
        told = self.defaults | self.values
        return {name.removeprefix(prefix): value for name, value in told.items() if name.startswith(prefix)}


@dataclass(slots=True, kw_only=True)
class Source:
    """One file being read.

    fields: its keys
    name: for messages
    folder: its location
    """

    fields: Fields
    name: str
    folder: Path
    told: ConfigValues

    def place(self, key: str) -> str:
        """The location of a key, for messages."""
        return f"{self.name}: {self.fields.name(key)}"

    def flag(self, key: str) -> bool | None:
        """True or false; None if missing or `auto`."""
        if self.fields.raw(key) == "auto":
            return None
        value: bool | None = self.fields.flag(key, None)
        return value

    def count(self, key: str, least: int = 1) -> int | None:
        """A whole number; None if missing or `auto`."""
        if self.fields.raw(key) == "auto":
            return None
        value: int | None = self.fields.integer(key, None, least=least)
        return value

    def text(self, key: str) -> str | None:
        """A text; None if missing or empty."""
        value: str | None = self.fields.text(key, None)
        return value or None

    def names(self, key: str) -> tuple[str, ...] | None:
        """A list of names, or comma-separated names; None if missing."""
        value = self.fields.raw(key)
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip()) or None
        if value is None:
            return None
        if isinstance(value, list | tuple) and all(isinstance(entry, str) and entry for entry in value):
            return tuple(value)
        self.fields.problem(key, "is not allowed; expected a list of names")
        return None

    def below(self, key: str) -> Source:
        """The mapping below a key."""
        return Source(fields=self.fields.mapping(key, lenient=True), name=self.name, folder=self.folder, told=self.told)

    def has(self, *formats: str) -> None:
        """Record which formats' keys this mapping may have, for the check after all readers."""
        self.told.sections.append((self, formats))

    def tell(self, name: str, value: Any, key: str) -> None:
        """Set a value from a key of this file."""
        self.told.tell(name, value, self.place(key))

    def note(self, key: str, text: str) -> None:
        """Note something about a key."""
        self.told.note(f"{self.place(key)} = {short(self.fields.data.get(key))}: {text}")
