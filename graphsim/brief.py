"""How an object shows itself at a Python prompt: in a few lines with units, however much it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from graphsim.units import (
    amount_text,
    bytes_text,
    joules_text,
    scaled,
    seconds_text,
    short,
    throughput_text,
    watts_text,
)

MOST = 500
"""Characters of a line; the rest is left out."""

_UNITS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("_bytes", bytes_text),
    ("tokens_per_s", throughput_text),
    ("tokens_per_s_per_gpu", throughput_text),
    ("_per_s", lambda value: scaled(value, "/s")),
    ("watts", watts_text),
    ("_j", joules_text),
    ("_s", seconds_text),
    ("overhead", lambda value: f"{100 * value:+.2f}%"),
)
"""How figures are written, by the end of their name."""


def figure_text(names: Iterable[str], value: float) -> str:
    """A figure as a person reads it; the first of its names that has a unit says which."""
    if np.isnan(value):
        return "–"
    return next((shown(value) for name in names for end, shown in _UNITS if name.endswith(end)), amount_text(value))


def range_text(value: Any, shown: Callable[[float], str]) -> str:
    """One figure, or from the least to the most of many scenarios.

    shown: how one is written
    """
    array = np.ravel(np.asarray(value, dtype=float))
    low, high = float(array.min()), float(array.max())
    return shown(low) if low == high or array.size == 1 else f"{shown(low)} to {shown(high)}"


def figures_text(kind: str, figures: Mapping[str, Any], *ends: str, of: str = "") -> str:
    """`<Memory: weights 14.96 GiB, kv cache 640 MiB, fits>`: numbers by name, then words that are left out if empty.

    of: which one of its kind
    """
    parts = [f"{_label(name)} {_figure(name, value)}" for name, value in figures.items()]
    return _cut(f"<{kind}{of and f' {of}'}: {', '.join([*parts, *filter(None, ends)]) or 'nothing'}", ">")


def settings_text(thing: Any, always: Iterable[str] = (), hidden: Iterable[str] = ()) -> str:
    """`LoraConfig(rank=16, variant='dora')`: the fields of a dataclass that are not at their default.

    always, hidden: names of fields that are shown, or left out, whatever they hold
    """
    shown, left_out = set(always), set(hidden)
    parts = [
        f"{own.name}={value_text(getattr(thing, own.name))}"
        for own in fields(thing)
        if own.name not in left_out and (own.name in shown or not _at_default(own, getattr(thing, own.name)))
    ]
    return _cut(f"{type(thing).__name__}({', '.join(parts)}", ")")


def call_text(thing: Any, **arguments: Any) -> str:
    """`Weighted(weights={'queue': 1.0})`: an object by the arguments it was made with; None and {} are left out."""
    parts = [f"{name}={value_text(value)}" for name, value in arguments.items() if value is not None and value != {}]
    return _cut(f"{type(thing).__name__}({', '.join(parts)}", ")")


def value_text(value: Any) -> str:
    """A value of a field in few characters; arrays by their ends."""
    if isinstance(value, np.ndarray) and value.size > 1 and value.dtype.kind in "iuf":
        return f"[{amount_text(value.min())} … {amount_text(value.max())}, {value.size} values]"
    if isinstance(value, np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    return short(value)


def _label(name: str) -> str:
    return name.removesuffix("_bytes").removesuffix("_s").removesuffix("_j").replace("_", " ")


def _figure(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | np.number | np.ndarray):
        return short(value)
    return range_text(value, lambda one: figure_text((name,), one))


def _at_default(own: Any, value: Any) -> bool:
    default = own.default if own.default_factory is MISSING else own.default_factory()
    if isinstance(default, int | float):
        return isinstance(value, int | float | np.number) and bool(value == default)
    return default is not MISSING and not isinstance(value, np.ndarray) and bool(value == default)


def _cut(text: str, end: str) -> str:
    return f"{text}{end}" if len(text) <= MOST else f"{text[:MOST]}…{end}"
