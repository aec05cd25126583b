"""What a step of an engine holds, as sums over its sequences: read from the arguments of a compiled step.

Numbers are floats, or arrays over steps that broadcast against each other. Checks are cheap where all are floats: a
step is asked for more often than anything else.
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
"""Two spellings of the same things, of which a call uses one."""

_NAMES = [(frozenset(convenient), frozenset(sums)) for convenient, sums in TWICE]
_CONVENIENT, _SUMS = (frozenset().union(*names) for names in zip(*_NAMES, strict=True))

_SLACK = 1.0 + 1e-9
"""Rounding that a bound on sums allows for."""


def number(name: str, value: Any) -> Num:
    """`value` as a float from 0 up, or a float array of them over steps. Raises ConfigError for anything else."""
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
    elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "iuf" and value.size:
        array = np.asarray(value, dtype=float)
        if ((array >= 0.0) & (array < inf)).all():
            return array if array.ndim else float(array)
    raise ConfigError(f"step: {name} = {short(value)} is not allowed; expected a number from 0")


def one_spelling(given: Given) -> None:
    """Raise ConfigError where one thing is said in two ways."""
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


def prompts(given: Given) -> dict[str, Num]:
    """Sums of the prompts, by their names in a step's formula."""
    if "prompt_tokens" in given:
        found = _prompts(given)
    elif "prefill_tokens" in given:
        found = _equal_prompts(
            given["prefill_tokens"], given.get("prefill_sequences", 1.0), given.get("past_tokens", 0.0)
        )
    else:
        found = _NO_PROMPTS
    if "prompts_ending" in given:
        ending = given["prompts_ending"]
        _require("prompts_ending", ending, 0.0, found["prompts"], "at most as many as there are prompts")
        return found | {"prompts_ending": ending}
    return found


_NO_PROMPTS: dict[str, Num] = dict.fromkeys(
    ("prompts", "prompt_tokens", "prompt_pairs", "prompt_rows", "prompts_ending"), 0.0
)


def _equal_prompts(each: Num, sequences: Num, past: Num) -> dict[str, Num]:
    """Of prompts alike: `each` new tokens behind `past` ones; those without new tokens are none."""
    count = sequences * _one_where(each)
    tokens = count * each
    return {
        "prompts": count,
        "prompt_tokens": tokens,
        "prompt_pairs": tokens * past + tokens * (each + 1.0) / 2.0,
        "prompt_rows": count * past + tokens,
        "prompts_ending": count,
    }


def _prompts(given: Given) -> dict[str, Num]:
    """Of prompts whose tokens are given: by default one, where there are any; with the pairs of equal prompts without a
    past; with the rows of equal prompts with the past that these pairs say: n pairs / tokens + (tokens - n) / 2.
    """
    tokens, live = given["prompt_tokens"], _one_where(given["prompt_tokens"])
    count = live
    if "prompts" in given:
        count = given["prompts"] * live
        _require("prompts", count, live, tokens, "from 1 to prompt_tokens, where there are any")
    least = tokens * (tokens / _divisor(count) + 1.0) / 2.0
    pairs = given.get("prompt_pairs", least)
    if "prompt_pairs" in given:
        _require("prompt_pairs", pairs, least, inf, "at least those of equal prompts without a past: n q (q + 1) / 2")
    if "prompt_rows" in given:
        rows = given["prompt_rows"]
        _require("prompt_rows", rows, tokens, inf, "at least prompt_tokens: every new token has a row")
    else:
        rows = count * pairs / _divisor(tokens) + (tokens - count) / 2.0
    return {
        "prompts": count,
        "prompt_tokens": tokens,
        "prompt_pairs": pairs,
        "prompt_rows": rows,
        "prompts_ending": count,
    }


def generation(given: Given) -> dict[str, Num]:
    """Sums of the sequences that get one token each, by their names in a step's formula.

    By default, each reads its own new row alone.
    """
    if "generating" in given:
        count = given["generating"]
        rows = given.get("cache_rows", count)
        _require("cache_rows", rows, count, inf, "at least generating: each reads its new row")
    else:
        count = given.get("decode_batch", 0.0)
        rows = count * (given.get("context", 0.0) + 1.0)
    return {"generating": count, "cache_rows": rows}


def adapted(given: Given, tokens: Num, configured: Given) -> dict[str, Num]:
    """What an adapter's formulas take: how many are active, the share of tokens that have one, their mean rank.

    tokens: all of the step; configured: the LoraConfig's numbers, of which `max_lora_rank` is the largest rank
    """
    found: dict[str, Num] = {}
    for name in ("adapters", "distinct_adapters"):
        if name in given:
            found["active_adapters"] = given[name]
    rows = given.get("adapted_tokens")
    if rows is not None:
        _require("adapted_tokens", rows, 0.0, tokens, "at most all tokens of the step")
        found["adapter_share"] = _share(rows, tokens)
    if "rank_rows" in given:
        rows = configured["adapter_share"] * tokens if rows is None else rows
        rank_rows, largest = given["rank_rows"], configured["max_lora_rank"]
        most = f"at most adapted tokens times {largest:g}, the largest rank of the LoraConfig or its max_lora_rank"
        _require("rank_rows", rank_rows, 0.0, rows * largest, most)
        found["rank"] = rank_rows / _divisor(rows)
    return found


def _share(rows: Num, tokens: Num) -> Num:
    """rows / tokens, rounded so that `tokens` times it is not above `rows`: kernels round up to whole tiles."""
    share = rows / _divisor(tokens)
    if isinstance(share, float):
        return share if share * tokens <= rows else float(np.nextafter(share, 0.0))
    return np.where(share * tokens <= rows, share, np.nextafter(share, 0.0))


def _one_where(value: Num) -> Num:
    """1 where there is something, else 0."""
    if isinstance(value, np.ndarray):
        return np.greater(value, 0.0).astype(float)
    return 1.0 if value > 0.0 else 0.0


def _divisor(value: Num) -> Num:
    """A value to divide by: 1 where it is 0."""
    if isinstance(value, np.ndarray):
        return np.where(value > 0.0, value, 1.0)
    return value if value > 0.0 else 1.0


def _require(name: str, value: Num, least: Num, most: Num, allowed: str) -> None:
    good = (least <= value * _SLACK) & (value <= most * _SLACK)
    if not (good if isinstance(good, bool) else np.all(good)):
        raise ConfigError(f"step: {name} = {short(value)} is not allowed; expected {allowed}")
