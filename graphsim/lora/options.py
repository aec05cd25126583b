"""Numbers, choices and names that a variant has beyond rank and targets, by the names of PEFT's own configs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.lora.matching import matched
from graphsim.units import bounds_text, short


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a variant, and its allowed values.

    name: PEFT's name
    default: its default, which also determines its type
    least, most: bounds of a whole number
    choices: the allowed words
    names: whether it is a list of names, or an expression for the whole path of a module
    """

    name: str
    default: Any = None
    least: int = 1
    most: int = 10**9
    choices: tuple[str, ...] = ()
    names: bool = False

    def checked(self, value: Any) -> Any:
        """The normalised value. Raises ConfigError naming the option, what was found and what is allowed."""
        if self.names:
            return self._names(value)
        if self.choices:
            return self._choice(value)
        if isinstance(self.default, bool):
            return value if isinstance(value, bool) else self._refuse(value, "True or False")
        good = isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.most
        return value if good else self._refuse(value, f"a whole number {bounds_text(self.least, self.most)}")

    def _choice(self, value: Any) -> Any:
        if isinstance(value, bool) and isinstance(self.default, str) and self.default in ("True", "False"):
            return str(value)
        if isinstance(value, str) and value in self.choices:
            return value
        raise ConfigError(
            f"lora.options.{self.name} = {short(value)} is not known; {choices_text(value, self.choices)}"
        )

    def _names(self, value: Any) -> Any:
        if value is None or (isinstance(value, str) and value):
            if value is not None:
                matched(value, "", f"options.{self.name}")
            return value
        good = isinstance(value, list | tuple) and all(isinstance(entry, str) and entry for entry in value)
        return tuple(value) if good else self._refuse(value, "a list of names or an expression")

    def _refuse(self, value: Any, allowed: str) -> Any:
        raise ConfigError(f"lora.options.{self.name} = {short(value)} is not allowed; expected {allowed}")


def checked(options: Sequence[Option], given: Any, variant: str) -> dict[str, Any]:
    """All options of a variant, given or by default.

    Raises ConfigError for an option that it does not have, and for a value that is not allowed.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"lora.options = {short(given)} is not allowed; expected a mapping of names to values")
    known = {option.name: option for option in options}
    for name in given:
        if name not in known:
            raise ConfigError(f"lora.options: variant '{variant}' has no {short(name)}; {_allowed(name, known)}")
    return {name: one.checked(given.get(name, one.default)) for name, one in known.items()}


def _allowed(name: Any, known: Iterable[str]) -> str:
    return choices_text(str(name), known) if known else "it takes none"
