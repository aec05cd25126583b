"""Reading a section that a layer may override key by key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphsim.files.reading import MAX_INTEGER, REQUIRED, Fields


class Overrides:
    """The same section at several levels; a key is read from the most specific level that gives it.

    A problem is reported at the level that gave the value, a missing key at the outermost level.
    """

    def __init__(self, *levels: Fields) -> None:
        """levels: from the most specific to the outermost."""
        self.levels = levels

    def _level(self, key: str) -> Fields:
        for level in self.levels:
            level.raw(key)  # marks the key as known at every level
        return next((level for level in self.levels if key in level), self.levels[-1])

    def __contains__(self, key: str) -> bool:
        """Whether any level gives the key."""
        return key in self._level(key)

    def integer(self, key: str, default: Any = REQUIRED, least: int = 1, most: int = MAX_INTEGER) -> Any:
        """An integer within bounds."""
        return self._level(key).integer(key, default, least, most)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        return bool(self._level(key).flag(key, default))

    def text(self, key: str, default: str, choices: Iterable[str] | None = None) -> str:
        """A string, one of `choices` if given."""
        return str(self._level(key).text(key, default, choices))

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """A number within bounds."""
        return float(self._level(key).number(key, default, least=least, most=most))

    def below(self, key: str) -> Overrides:
        """A section within this one, at all levels that have it."""
        return Overrides(*(level.mapping(key) for level in self.levels))

    def problem(self, key: str, text: str) -> None:
        """Note a problem with `key` at the level that gave it."""
        self._level(key).problem(key, text)


def says_nothing(fields: Fields, keys: tuple[str, ...], beside: str) -> None:
    """Note a problem for each of the keys, which have no effect because of another key.

    beside: the other key
    """
    for key in keys:
        if key in fields:
            fields.problem(key, f"has no effect with {beside}; leave it out")
