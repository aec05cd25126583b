"""The arguments of a compiled step, read and checked: numbers or arrays over steps, without contradictions.

Checks are cheap for floats, since steps are evaluated very often.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.units import Num, short

Given = Mapping[str, Num]
"""Those arguments that are given, by name."""

TWICE = (
    (
        ("prefill_tokens", "prefill_sequences", "past_tokens"),
        ("prompt_tokens", "prompt_pairs", "prompts", "prompt_rows"),
    ),
    (("decode_batch", "context"), ("generating", "cache_rows")),
    (("adapters",), ("distinct_adapters",)),
)
"""Two ways to state the same sums, of which a call uses one."""

_NAMES = [(frozenset(convenient), frozenset(sums)) for convenient, sums in TWICE]
_CONVENIENT, _SUMS = (frozenset().union(*names) for names in zip(*_NAMES, strict=True))

PROMPTS = _NAMES[0][0] | _NAMES[0][1] | {"prompts_ending"}
GENERATION = _NAMES[1][0] | _NAMES[1][1]
ADAPTERS = _NAMES[2][0] | _NAMES[2][1] | {"adapted_tokens", "rank_rows"}
"""Names of the arguments for prompts, for generation, and for adapters."""

ALLOWED = {
    "prompts": "from 1 to prompt_tokens, where there are any",
    "prompt_pairs": "at least those of equal prompts without a past: n q (q + 1) / 2",
    "prompt_rows": "from prompt_tokens, as every new token has a row, to prompt_pairs",
    "prompts_ending": "at most as many as there are prompts",
    "cache_rows": "at least generating: each reads its new row; 0 for none",
    "adapted_tokens": "at most all tokens of the step",
    "distinct_adapters": "at most one for each adapted token",
}
"""Bounds of arguments that depend on others."""

_SLACK = 1.0 + 1e-9
"""Rounding error that a bound on sums tolerates."""


def number(name: str, value: Any) -> Num:
    """`value` as a float from 0, or a float array of them over steps. Raises ConfigError for anything else."""
    kind = type(value)
    if kind is float:
        if 0.0 <= value < inf:
            return value  # type: ignore[no-any-return]
    elif kind is int:
        if 0 <= value < 2**1000:
            return float(value)
    elif isinstance(value, list | tuple):
        raise ConfigError(
            f"step: {name} = {short(value)} is a list, which could be the sequences of one step or several steps; "
            "give sums over one step's sequences, or a numpy array over steps"
        )
    elif isinstance(value, np.ndarray | np.generic) and _is_plain(value):
        array = np.asarray(value, dtype=float)
        if ((array >= 0.0) & (array < inf)).all():
            return array if array.ndim else float(array)
    raise ConfigError(f"step: {name} = {short(value)} is not allowed; expected a number from 0")


def _is_plain(value: np.ndarray | np.generic) -> bool:
    """Whether an array holds numbers, none of them masked."""
    return value.dtype.kind in "iuf" and value.size > 0 and not np.ma.isMaskedArray(value)


def refuse_unaligned(given: Given) -> None:
    """Raise ConfigError where arrays over steps do not broadcast against each other."""
    shapes = {name: value.shape for name, value in given.items() if isinstance(value, np.ndarray)}
    for name, shape in shapes.items():
        for other, others in shapes.items():
            try:
                np.broadcast_shapes(shape, others)
            except ValueError:
                raise ConfigError(
                    f"step: {name} of shape {shape} and {other} of shape {others} do not broadcast; "
                    "give arrays over the same steps, or one number for all"
                ) from None


def one_spelling(given: Given) -> None:
    """Raise ConfigError if the same sum is stated in two ways."""
    if _SUMS.isdisjoint(given) or _CONVENIENT.isdisjoint(given):
        return
    for convenient, sums in _NAMES:
        if not convenient.isdisjoint(given) and not sums.isdisjoint(given):
            ways = next(ways for ways in TWICE if convenient.issuperset(ways[0]))
            first, second = (next(name for name in names if name in given) for names in ways)
            raise ConfigError(
                f"step: {first} and {second} are two spellings of one thing; "
                f"give either {_listed(ways[0])}, or {_listed(ways[1])}"
            )


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def refuse_alone(given: Given, names: frozenset[str], leader: str) -> None:
    """Raise ConfigError for details without the amount that they belong to."""
    if not names.isdisjoint(given):
        alone = next(name for name in given if name in names)
        raise ConfigError(f"step: {alone} is given without {leader}")


def require(name: str, value: Num, least: Num, most: Num, allowed: str = "") -> None:
    """Raise ConfigError, stating what is allowed (as in ALLOWED), unless `value` lies between two bounds."""
    good = (least <= value * _SLACK) & (value <= most * _SLACK)
    if not (good if isinstance(good, bool) else np.all(good)):
        raise ConfigError(f"step: {name} = {short(value)} is not allowed; expected {allowed or ALLOWED[name]}")
