"""Strict YAML: no aliases, duplicate keys, tags or deep nesting. Imported only when a file is read."""

from __future__ import annotations

from typing import Any

import yaml

from graphsim.errors import ConfigError

MAX_DEPTH = 50
_TOO_DEEP = f"nested over {MAX_DEPTH} deep"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):  # type: ignore[misc]
    """A safe YAML loader that rejects duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-any-return]


def parse(text: str) -> Any:
    """The plain data in a YAML text. Raises ConfigError with the line of the error."""
    try:
        _refuse_aliases_and_depth(text)
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        if "nesting depth" in problem:  # libyaml's scanner has its own limit, which may apply first
            problem = _TOO_DEEP
        raise ConfigError(f"{line}not valid YAML ({problem})") from None


def _refuse_aliases_and_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):  # aliases can make a short file expand without limit
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", mark)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, _TOO_DEEP, mark)
