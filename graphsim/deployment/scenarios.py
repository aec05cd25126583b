"""The scenario axis: finding out how many scenarios a description holds, and selecting some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from graphsim.deployment.memoised import Memoised
from graphsim.errors import ConfigError
from graphsim.lora.profile import EngineProfile
from graphsim.models.config import ModelConfig
from graphsim.ops.precision import Precision
from graphsim.units import Num, amount_text, as_number, bounds_text, is_within, short

T = TypeVar("T")
MOST = 10**9
"""Largest allowed batch or length."""


def count(name: str, value: Any, least: int = 1) -> Num:
    """`value` as a float or a float array. Raises ConfigError unless it holds whole numbers from `least` up."""
    number = as_number(value)
    if number is not None and is_within(number, least, MOST, whole=True):
        return number
    found = f"= {short(value)} is"
    if isinstance(number, np.ndarray):
        bad = next(float(one) for one in number if not is_within(float(one), least, MOST, whole=True))
        found = f"holds {amount_text(bad)}, which is"
    raise ConfigError(f"{name} {found} {not_counted(least)}")


def not_counted(least: int = 1) -> str:
    """The end of a message on a number that is not a valid count."""
    return f"not allowed; expected whole numbers {bounds_text(least, MOST)}"


def scenarios_in(*described: Any) -> int | None:
    """How many scenarios the arrays in some descriptions hold; None where there are only numbers.

    Raises ConfigError if arrays differ in length.
    """
    lengths = set().union(*map(_lengths, described))
    if len(lengths) > 1:
        raise ConfigError(f"arrays over scenarios differ in length: {', '.join(map(str, sorted(lengths)))}")
    return lengths.pop() if lengths else None


def has_arrays(described: Any) -> bool:
    """Whether a description holds any numbers that are arrays."""
    return bool(_lengths(described))


def take(described: T, rows: NDArray[np.intp] | slice | int) -> T:
    """The same description with only some scenarios in its arrays, or with plain numbers for a single one."""
    return _take(described, rows)  # type: ignore[no-any-return]


def _lengths(thing: Any) -> frozenset[int]:
    """The lengths of the arrays in a description."""
    return thing.once(_measured) if isinstance(thing, Memoised) else _measured(thing)


def _measured(thing: Any) -> frozenset[int]:
    return frozenset(map(len, _arrays(thing)))


def _arrays(thing: Any) -> Iterator[NDArray[np.float64]]:
    if isinstance(thing, np.ndarray) and thing.ndim:
        yield thing
        return
    for part in _parts(thing).values():
        if not isinstance(part, _ATOMS):
            yield from _arrays(part)


def _take(thing: Any, rows: NDArray[np.intp] | slice | int) -> Any:
    if isinstance(thing, np.ndarray) and thing.ndim:
        return thing[rows]
    parts = _parts(thing)
    taken = {name: _take(part, rows) for name, part in parts.items()}
    changed = {name: part for name, part in taken.items() if part is not parts[name]}
    if not changed:
        return thing
    if isinstance(thing, Mapping):
        return taken
    return tuple(taken.values()) if isinstance(thing, tuple) else replace(thing, **changed)


_ATOMS = (float, str, int, type(None))


def _parts(thing: Any) -> Mapping[Any, Any]:
    if isinstance(thing, Mapping):
        return thing
    if isinstance(thing, tuple):
        return dict(enumerate(thing))
    if is_dataclass(thing) and not isinstance(thing, type | ModelConfig | Precision | EngineProfile):
        return {name: getattr(thing, name) for name in _given(type(thing)) if name != "sources"}  # these are texts
    return {}


@cache
def _given(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass that are given, not computed."""
    return tuple([field.name for field in fields(kind) if field.init])
