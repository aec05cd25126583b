"""Users' cost functions: their results are checked, and their dependencies become the key of a memo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from graphsim.cost.base import Cost, CostModel, Trusted
from graphsim.errors import ConfigError
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.memo import ATOMS, UNKEPT
from graphsim.symbolic.questions import is_known
from graphsim.units import short

PARTS = ("busy_s", "launch_s", "compute_s", "memory_s", "network_s")
"""The parts of a price that must be times."""

DEEPEST = 6
"""Largest nesting of containers that is searched."""


class UsersCost(Trusted):
    """A user's cost function, whose prices are Costs of seconds from 0.

    Raises ConfigError for any other price, naming the function and the operation.
    """

    def __init__(self, function: CostModel) -> None:
        self._function = function

    @property
    def name(self) -> str:
        """The function's own name; an object has none."""
        return getattr(self._function, "__name__", "custom")

    @property
    def described(self) -> str:
        """Its name in error messages."""
        own = getattr(self._function, "__name__", type(self._function).__name__)
        return f"cost function '{own}'"

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        """The price that the function returns, if it is valid."""
        found: Any = self._function(op, hardware)
        if not isinstance(found, Cost):
            raise ConfigError(f"{self.described} gave {short(found)} for {named(op)}; expected a Cost")
        for part in PARTS:
            self.check(getattr(found, part), part, op)
        return found

    def check(self, value: Any, part: str, op: Op) -> None:
        """Raise ConfigError unless a part of a price is a time; symbols are checked when their values are known."""
        if is_known(value) and not _is_time(value):
            shown = short(value.item() if isinstance(value, np.generic) else value)
            raise ConfigError(f"{self.described} gave {part} = {shown} for {named(op)}; expected seconds from 0")

    def rests_on(self) -> Iterator[Any]:
        """Everything that the prices are known to depend on, as parts of a description for `Memo`."""
        return _of_callable(self._function)


def named(op: Op) -> str:
    """An operation in an error sentence: its kind, and its role where it has one."""
    role = getattr(op, "role", "")
    return f"{type(op).__name__} '{role}'" if role else type(op).__name__


def _is_time(value: Any) -> bool:
    if isinstance(value, float | int):
        return 0.0 <= value < np.inf
    try:
        return bool(np.all((np.asarray(value) >= 0.0) & (np.asarray(value) < np.inf)))
    except TypeError:
        return False


def _of_callable(function: Callable[..., Any]) -> Iterator[Any]:
    """A function's code, cells and plain globals; a method's object as well; the plain fields of any other object."""
    if isinstance(function, partial):
        yield from _of_callable(function.func)
        yield from _of_value([function.args, function.keywords], UNKEPT)
    elif isinstance(function, MethodType):
        yield from _of_callable(function.__func__)
        yield from _of_object(function.__self__)
    elif isinstance(function, FunctionType):
        yield function
        yield from _of_function(function)
    elif isinstance(function, type | BuiltinFunctionType):
        yield function
    else:
        call = type(function).__call__
        yield from _of_function(call) if isinstance(call, FunctionType) else ()
        yield from _of_object(function)


def _of_function(function: FunctionType) -> Iterator[Any]:
    """The values that a function reads in addition to its arguments; non-plain ones by identity."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield name
        try:
            held = cell.cell_contents
        except ValueError:  # not assigned yet
            yield UNKEPT
        else:
            yield from _of_value(held, held)
    for name in function.__code__.co_names:
        held = function.__globals__.get(name)
        if isinstance(held, ATOMS) and held is not None:
            yield name
            yield held


def _of_object(thing: Any) -> Iterator[Any]:
    """An object by identity, and its fields unless it is frozen."""
    yield thing
    if not _is_fixed(thing):
        slots = {name for kind in type(thing).__mro__ for name in _names(vars(kind).get("__slots__", ()))}
        held = {name: getattr(thing, name) for name in sorted(slots) if hasattr(thing, name)}
        yield from _of_value(held | getattr(thing, "__dict__", {}), UNKEPT)


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _of_value(value: Any, otherwise: Any, deep: int = 0) -> Iterator[Any]:
    """A value's plain entries in order; `otherwise` for entries that are neither plain nor immutable.

    deep: number of enclosing containers; at most DEEPEST, as a container may contain itself
    """
    if isinstance(value, ATOMS) or _is_fixed(value):
        yield value
    elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        yield from (value.tobytes(), value.dtype.str, str(value.shape))
    elif isinstance(value, list | tuple | dict | set | frozenset) and deep < DEEPEST:
        yield from (type(value).__name__, len(value))
        for entry in value.items() if isinstance(value, dict) else value:
            yield from _of_value(entry, otherwise if otherwise is UNKEPT else entry, deep + 1)
    else:
        yield otherwise


def _is_fixed(thing: Any) -> bool:
    """Whether an object is immutable, as frozen dataclasses, functions and modules are assumed to be."""
    if isinstance(thing, Trusted | Enum | type | FunctionType | BuiltinFunctionType | ModuleType | np.ufunc):
        return True
    params = getattr(type(thing), "__dataclass_params__", None)
    return params is not None and bool(params.frozen)
