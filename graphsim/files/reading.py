"""Reading a user's YAML and JSON: safely, strictly, and with all problems in one message.

`load_mapping` reads a file into plain data; `Fields` reads such data key by key, checks types and ranges, collects all
problems, and raises one ConfigError that lists them when `finish` is called.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.present import shown
from graphsim.files.strict_yaml import parse as parse_yaml
from graphsim.units import amount_text, bounds_text, parse_quantity, short

MAX_FILE_BYTES = 8 * 2**20
MAX_INTEGER = 10**15
REQUIRED: Any = object()


def read_text(path: Path) -> str:
    """The text of a user's file. Raises ConfigError if the file is missing, empty, too large or not text."""
    if "\0" in str(path):
        raise ConfigError(f"{short(str(path))}: contains a character that no path may have")
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder, expected a file")
        if not path.is_file():
            raise ConfigError(f"{path}: is not a regular file")
        if size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: has {amount_text(size)} bytes, allowed: at most {amount_text(MAX_FILE_BYTES)}")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text file (byte {error.start} is not UTF-8)") from None
    except OSError as error:
        raise ConfigError(f"{shown(path)}: cannot be read ({error.strerror or error})") from None
    if not text.strip():
        raise ConfigError(f"{path}: the file is empty, expected a mapping of keys to values")
    return text


def load_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises ConfigError with the line of a syntax error, a duplicate key or an alias.
    """
    text = read_text(path)
    try:
        data = json.loads(text, object_pairs_hook=_unique) if path.suffix == ".json" else parse_yaml(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}: not valid JSON ({error.msg})") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(f"{path}: cannot be parsed ({type(error).__name__}: {str(error)[:80]})") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{path}: holds {found}, expected a mapping of keys to values")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ConfigError(f"key '{twice}' is given twice")
    return data


class Fields:
    """One mapping of a user's file, read key by key.

    Getters note a problem and return the default, so that a loader can continue and report all problems at once. Keys
    that were not read are problems, too, unless `lenient`.
    """

    def __init__(  # noqa: D107 - see the class
        self, data: Any, where: str, *, lenient: bool = False, parent: Fields | None = None, path: str = ""
    ) -> None:
        self.where, self.path, self.lenient = where, path, lenient
        self.problems: list[str] = parent.problems if parent else []
        self._known: set[str] = set()
        self._children: list[Fields] = []
        if not isinstance(data, Mapping):
            self.problems.append(f"{path or 'the document'} = {short(data)} is not a mapping")
            data = {}
            if parent:
                self.problems = []  # one problem suffices; missing keys are not reported in addition
        self.data: Mapping[str, Any] = data

    def __contains__(self, key: str) -> bool:
        """Whether the file has a value for `key`."""
        return self.data.get(key) is not None

    def keys(self) -> Iterable[str]:
        """The keys of the mapping in the file."""
        return [str(key) for key in self.data]

    def is_idle(self, key: str) -> bool:
        """Whether the file has the key and it has not been read yet."""
        return key in self and key not in self._known

    def asked(self, key: str) -> bool:
        """Whether the key has been requested."""
        return key in self._known

    @property
    def asked_for(self) -> frozenset[str]:
        """The keys that have been requested, whether the file has them or not."""
        return frozenset(self._known)

    def name(self, key: str) -> str:
        """The path of a key within the file: `attention.heads`."""
        return f"{self.path}.{key}" if self.path else key

    def problem(self, key: str, text: str) -> None:
        """Note a problem with `key`; `text` continues the sentence after the value."""
        found = f" = {short(self.data[key])}" if key in self.data else ""
        self.problems.append(f"{self.name(key)}{found} {text}")

    def raw(self, key: str, default: Any = None) -> Any:
        """The unchecked value; null counts as absent."""
        self._known.add(key)
        value = self.data.get(key)
        return default if value is None else value

    def _checked(self, key: str, default: Any, good: Callable[[Any], bool], allowed: str) -> Any:
        value = self.raw(key)
        if value is None:
            if default is REQUIRED:
                self.problems.append(f"{self.name(key)} is missing, expected {allowed}")
                return None
            return default
        if not good(value):
            self.problem(key, f"is not allowed; expected {allowed}")
            return None if default is REQUIRED else default
        return value

    def text(self, key: str, default: Any = REQUIRED, choices: Iterable[str] | None = None) -> Any:
        """A string, one of `choices` if given."""
        value = self._checked(key, default, lambda v: isinstance(v, str) and len(v) <= 10_000, "a string")
        allowed = None if choices is None else list(choices)
        if allowed is not None and isinstance(value, str) and key in self and value not in allowed:
            self.problem(key, f"is not allowed; {choices_text(value, allowed)}")
            return allowed[0] if default is REQUIRED else default
        return value

    def integer(self, key: str, default: Any = REQUIRED, least: int = 1, most: int = MAX_INTEGER) -> Any:
        """An integer within bounds; a float such as 4.0 counts as one."""

        def good(value: Any) -> bool:
            whole = isinstance(value, int) or (
                isinstance(value, float) and math.isfinite(value) and value == math.floor(value)
            )
            return whole and not isinstance(value, bool) and least <= value <= most

        value = self._checked(key, default, good, f"a whole number {bounds_text(least, most)}")
        fallback = max(least, 1) if value is None and default is REQUIRED else value
        return int(fallback) if isinstance(fallback, float) else fallback

    def number(
        self, key: str, default: Any = REQUIRED, kind: str = "", least: float = 0.0, most: float = math.inf
    ) -> Any:
        """A finite number in SI units, written without a unit or with a unit of `kind` (see units.UNITS)."""
        value = self._checked(key, default, lambda v: True, f"a number{f' in {kind}' if kind else ''}")
        if value is default or value is None:
            return 1.0 if value is None and default is REQUIRED else value
        try:
            number = parse_quantity(value, kind)
        except ConfigError as error:
            self.problems.append(f"{self.name(key)}: {error}")
            return 1.0 if default is REQUIRED else default
        if not least <= number <= most:
            unit = f" (in {kind}; is the unit missing?)" if kind and isinstance(self.data[key], int | float) else ""
            self.problem(key, f"is not allowed; expected a number {bounds_text(least, most, kind)}{unit}")
            return 1.0 if default is REQUIRED else default
        return number

    def flag(self, key: str, default: Any = REQUIRED) -> Any:
        """true or false."""
        return self._checked(key, default, lambda v: isinstance(v, bool), "true or false")

    def mapping(self, key: str, *, required: bool = False, lenient: bool | None = None) -> Fields:
        """The mapping below `key`; empty if absent."""
        value = self.raw(key)
        if value is None and required:
            self.problems.append(f"{self.name(key)} is missing, expected a mapping")
        nested = self.child({} if value is None else value, self.name(key), lenient)
        if value is None and required:
            nested.problems = []  # as in `__init__`
        return nested

    def sequence(self, key: str, *, required: bool = False, most: int = 100_000) -> Sequence[Any]:
        """The list below `key`; empty if absent."""
        value = self.raw(key)
        if value is None:
            if required:
                self.problems.append(f"{self.name(key)} is missing, expected a list")
            return []
        if not isinstance(value, list | tuple) or len(value) > most:
            self.problem(key, f"is not allowed; expected a list of at most {amount_text(most)} entries")
            return []
        return value

    def child(self, data: Any, path: str, lenient: bool | None = None) -> Fields:
        """Fields for a nested value, sharing this one's list of problems."""
        nested = Fields(data, self.where, parent=self, path=path, lenient=self.lenient if lenient is None else lenient)
        self._children.append(nested)
        return nested

    def below(self) -> Iterator[Fields]:
        """The mappings that were read below this one, recursively."""
        for nested in self._children:
            yield nested
            yield from nested.below()

    def unknown_keys(self) -> list[str]:
        """Problems for the keys of the file that were not read, here and below."""
        unknown = [] if self.lenient else [key for key in self.data if key not in self._known]
        told = [choices_text(key, self._known) for key in unknown]
        told[1:] = [text.partition("allowed:")[0].strip() for text in told[1:]]  # what is allowed is stated only once
        own = [
            f"{self.name(str(key))} is not a known key{'; ' if hint else ''}{hint}"
            for key, hint in zip(unknown, told, strict=True)
        ]
        return own + [text for nested in self._children for text in nested.unknown_keys()]

    def finish(self) -> None:
        """Raise one ConfigError with all problems found, including unknown keys."""
        problems = list(dict.fromkeys(self.unknown_keys() + self.problems))
        if problems:
            more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
            raise ConfigError(f"{self.where}: " + "; ".join(problems[:8]) + more)
