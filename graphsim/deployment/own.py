"""Checks of a user's own passes, which must be fully and immutably described by class and fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.graph import STAGES, Pass
from graphsim.symbolic.substitute import names_of
from graphsim.units import short


def checked(own: Any) -> tuple[Pass, ...]:
    """A user's own passes.

    Raises ConfigError for anything but a list of passes, for an unknown stage, and for a pass that is mutable or not
    described by its fields, since results are cached by a pass's class and fields.
    """
    if isinstance(own, str | Pass | type) or not isinstance(own, Iterable):
        raise ConfigError(f"passes = {short(own)} is not allowed; give a list of passes, such as [FuseNorm()]")
    passes: tuple[Pass, ...] = tuple(own)
    for given in passes:
        if isinstance(given, type) and issubclass(given, Pass):
            raise ConfigError(f"passes holds the class {given.__name__}; give an instance of it, {given.__name__}(…)")
        if not isinstance(given, Pass):
            raise ConfigError(
                f"passes holds {short(given)}, which is not a pass; expected instances of a subclass of Pass"
            )
        if given.stage not in STAGES:
            where = f"{type(given).__name__}.stage = {short(given.stage)}"
            raise ConfigError(f"{where} is not allowed; {choices_text(given.stage, STAGES)}")
        _check_fields(given)
    return passes


def _check_fields(one: Any) -> None:
    """Raise ConfigError unless a pass is immutably described by its class and fields."""
    kind = type(one)
    named = names_of(kind) if is_dataclass(kind) else ()
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    if not frozen or not _held(one) <= set(named):
        raise ConfigError(
            f"pass {kind.__name__} is not allowed; expected a frozen dataclass whose fields are its arguments"
        )
    for name in named:
        if not hasattr(one, name):
            raise ConfigError(f"pass {kind.__name__} has no value for its field '{name}'")
        value = getattr(one, name)
        try:
            hash(value)
        except TypeError:
            where = f"pass {kind.__name__}: {name} = {short(value)}"
            raise ConfigError(
                f"{where} is mutable; expected an immutable value, such as a number, a string or a tuple"
            ) from None


def _held(one: Pass) -> set[str]:
    """The names of an object's attributes, except for those computed from its fields."""
    kind = type(one)
    slots = {name for base in kind.__mro__ for name in _slots(base) if hasattr(one, name)}
    return {
        name for name in slots | set(getattr(one, "__dict__", ()))
        if not isinstance(getattr(kind, name, None), cached_property)
    }  # fmt: skip


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return tuple(name for name in ((slots,) if isinstance(slots, str) else slots) if not name.startswith("__"))
