"""Replacing a description's numbers by symbols, and symbols by values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from graphsim.symbolic.expr import Expr

T = TypeVar("T")


def with_fields(thing: T, changes: Mapping[str, Any]) -> T:
    """A copy of a dataclass with other values in some fields, without any checks."""
    copy = object.__new__(type(thing))
    for name in names_of(type(thing)):  # type: ignore[arg-type]
        object.__setattr__(copy, name, changes[name] if name in changes else getattr(thing, name))
    return copy


@cache
def names_of(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass by name."""
    return tuple([field.name for field in fields(kind)])


def numeric_fields(thing: Any) -> dict[str, Any]:
    """The fields of a dataclass that are declared as numbers, or as mappings of names to numbers, and their values."""
    return {name: getattr(thing, name) for name in _numeric(type(thing))}  # type: ignore[arg-type]


@cache
def _numeric(kind: type) -> tuple[str, ...]:
    return tuple([field.name for field in fields(kind) if field.type in ("Num", "Mapping[str, Num]")])


def symbols_in(thing: Any) -> list[Expr]:
    """The formulas in the fields of an operation, in a fixed order."""
    return list(_symbols(thing))


def _symbols(thing: Any) -> Iterator[Expr]:
    if isinstance(thing, Expr):
        yield thing
    elif is_dataclass(thing) and not isinstance(thing, type):
        for name in names_of(type(thing)):
            yield from _symbols(getattr(thing, name))
    elif isinstance(thing, tuple):
        for entry in thing:
            yield from _symbols(entry)


def filler(thing: Any) -> Callable[[Iterator[Any]], Any]:
    """A function that rebuilds `thing` from an iterator over values for its symbols, in the order of `symbols_in`."""
    if isinstance(thing, Expr):
        return next
    if isinstance(thing, tuple) and symbols_in(thing):
        entries = [filler(entry) for entry in thing]
        return lambda values: tuple([fill(values) for fill in entries])
    if is_dataclass(thing) and not isinstance(thing, type) and symbols_in(thing):
        held = {name: getattr(thing, name) for name in names_of(type(thing))}
        parts = {name: filler(value) for name, value in held.items() if symbols_in(value)}
        return lambda values: with_fields(thing, {name: fill(values) for name, fill in parts.items()})
    return lambda _: thing
