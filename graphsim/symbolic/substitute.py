"""Putting symbols in the place of a description's numbers, and values in the place of symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from graphsim.symbolic.expr import Expr

T = TypeVar("T")


def with_fields(thing: T, changes: Mapping[str, Any]) -> T:
    """A copy of a dataclass with other values in some fields, which are known to be good: nothing is checked."""
    copy = object.__new__(type(thing))
    for field in fields(thing):  # type: ignore[arg-type]
        value = changes[field.name] if field.name in changes else getattr(thing, field.name)
        object.__setattr__(copy, field.name, value)
    return copy


def numeric_fields(thing: Any) -> dict[str, Any]:
    """The fields of a dataclass that are declared as numbers, or as mappings of names to numbers, and their values."""
    return {
        field.name: getattr(thing, field.name) for field in fields(thing) if field.type in ("Num", "Mapping[str, Num]")
    }


def symbols_in(thing: Any) -> list[Expr]:
    """The formulas in the fields of an operation, in a fixed order."""
    return list(_symbols(thing))


def _symbols(thing: Any) -> Iterator[Expr]:
    if isinstance(thing, Expr):
        yield thing
    elif is_dataclass(thing) and not isinstance(thing, type):
        for field in fields(thing):
            yield from _symbols(getattr(thing, field.name))
    elif isinstance(thing, tuple):
        for entry in thing:
            yield from _symbols(entry)


def filler(thing: Any) -> Callable[[Iterator[Any]], Any]:
    """A function that makes `thing` anew from an iterator over values for its symbols, in the order of `symbols_in`."""
    if isinstance(thing, Expr):
        return next
    if isinstance(thing, tuple) and symbols_in(thing):
        entries = [filler(entry) for entry in thing]
        return lambda values: tuple([fill(values) for fill in entries])
    if is_dataclass(thing) and not isinstance(thing, type) and symbols_in(thing):
        parts = {f.name: filler(getattr(thing, f.name)) for f in fields(thing) if symbols_in(getattr(thing, f.name))}
        return lambda values: with_fields(thing, {name: fill(values) for name, fill in parts.items()})
    return lambda _: thing
