"""Matching of module names by the lists and patterns of quantisation methods."""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphsim.models.quantised import Kind, Module

Test = Callable[[str], bool]
"""Whether an entry of a list matches the module of that name."""

_PLAIN = re.compile(r"[\w.-]*")


def any_name(module: Module, test: Test) -> bool:
    """Whether a test holds for any spelling of the name of any of the module's parts."""
    return any(test(name) for part in module.names for name in part)


def is_linear(module: Module) -> bool:
    """Whether it is an nn.Linear, which methods that select modules by class quantise."""
    return module.usual or module.kind in (Kind.LINEAR, Kind.EXPERTS)


def in_blocks(module: Module) -> bool:
    """Whether it is a linear layer in the language model's blocks, other than a router."""
    return module.usual


def is_output(module: Module) -> bool:
    """Whether it is an output head with separate weights."""
    return module.kind is Kind.HEAD and not module.tied


def transformers_list(entries: Iterable[str]) -> Test:
    """A test for modules that transformers does not convert (`quantizers_utils.should_convert_module`, 5.24).

    An entry is a regular expression that matches from the name's start up to the end of one of its words, or a suffix
    of the name. Raises re.error for an invalid expression.
    """
    whole: set[str] = set()
    ends: dict[str, list[str]] = defaultdict(list)
    patterns: list[re.Pattern[str]] = []
    for entry in entries:
        ends[entry.rpartition(".")[2] if "." in entry else ""].append(entry)
        if _PLAIN.fullmatch(entry):
            whole.add(entry)
        else:
            patterns.append(re.compile(rf"(?:{entry})(?:(?<=\.)|(?=\.|$))"))

    def test(name: str) -> bool:
        if any(front in whole for front in _fronts(name)) or any(pattern.match(name) for pattern in patterns):
            return True
        return any(name.endswith(entry) for last in (name.rpartition(".")[2], "") for entry in ends.get(last, ()))

    return test


def _fronts(name: str) -> Iterable[str]:
    """The prefixes of the name up to each of its dots, with and without the dot, and the whole name."""
    at = name.find(".")
    while at >= 0:
        yield name[:at]
        yield name[: at + 1]
        at = name.find(".", at + 1)
    yield name


def substrings(entries: Iterable[str]) -> Test:
    """A test for names that contain an entry (AutoAWQ's `exclude_layers_to_not_quantize`)."""
    listed = tuple(entries)
    return lambda name: any(entry in name for entry in listed)


def wildcards(entries: Iterable[str]) -> Test:
    """A test for names that match an entry with `*`, or that equal, or are within, an entry without one."""
    whole: set[str] = set()
    starts: list[str] = []
    patterns: list[Callable[[str], object]] = []
    for entry in entries:
        if not set(entry) & set("*?["):
            whole.add(entry.strip("."))
        elif not set(entry[:-1]) & set("*?[") and entry.endswith("*"):
            starts.append(entry[:-1])
        else:
            patterns.append(re.compile(fnmatch.translate(entry)).match)
    front = tuple(starts)

    def test(name: str) -> bool:
        if (front and name.startswith(front)) or any(match(name) for match in patterns):
            return True
        return bool(whole) and any(part in whole for part in _inner(name))

    return test


def _inner(name: str) -> Iterable[str]:
    """Every run of words of a name: `a.b.c`, `a.b`, `a`, `b.c`, `b`, `c`."""
    words = name.split(".")
    return (".".join(words[i:j]) for i in range(len(words)) for j in range(len(words), i, -1))


def regular(pattern: str) -> Test:
    """A test for names whose start matches a regular expression. Raises re.error for an invalid one."""
    matches = re.compile(pattern).match
    return lambda name: matches(name) is not None


def texts_in(value: Any) -> Iterable[str]:
    """All strings of a nested value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts_in(key)
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)
