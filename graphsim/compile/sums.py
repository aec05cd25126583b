"""The contents of an engine's step as sums over its sequences, computed from the arguments of a compiled step.

Numbers are floats, or arrays over steps that broadcast against each other.
"""

from __future__ import annotations

from math import inf

import numpy as np

from graphsim.compile.given import ALLOWED, GENERATION, PROMPTS, Given, refuse_alone, require
from graphsim.units import Num, amount_text


def prompts(given: Given) -> dict[str, Num]:
    """Sums of the prompts, by their names in a step's formula."""
    if "prompt_tokens" in given:
        found = _prompts(given)
    elif "prefill_tokens" in given:
        found = _equal_prompts(
            given["prefill_tokens"], given.get("prefill_sequences", 1.0), given.get("past_tokens", 0.0)
        )
    else:
        refuse_alone(given, PROMPTS, "prompt_tokens or prefill_tokens")
        found = _NO_PROMPTS
    if "prompts_ending" in given:
        ending = given["prompts_ending"]
        require("prompts_ending", ending, 0.0, found["prompts"])
        return found | {"prompts_ending": ending}
    return found


_NO_PROMPTS: dict[str, Num] = dict.fromkeys(
    ("prompts", "prompt_tokens", "prompt_pairs", "prompt_rows", "prompts_ending"), 0.0
)


def _equal_prompts(each: Num, sequences: Num, past: Num) -> dict[str, Num]:
    """Of identical prompts: `each` new tokens after `past` ones; prompts without new tokens do not count."""
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
    past; with the rows of equal prompts whose past follows from these pairs: n pairs / tokens + (tokens - n) / 2.
    """
    tokens, live = given["prompt_tokens"], _one_where(given["prompt_tokens"])
    count = live
    if "prompts" in given:
        count = given["prompts"] * live
        require("prompts", count, live, tokens)
    least = tokens * (tokens / _divisor(count) + 1.0) / 2.0
    pairs = given.get("prompt_pairs", least)
    if "prompt_pairs" in given:
        require("prompt_pairs", pairs, least, _ceiling(tokens))
    if "prompt_rows" in given:
        rows = given["prompt_rows"]
        require("prompt_rows", rows, tokens, pairs)
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

    By default, each reads only its own new row.
    """
    count: Num
    if "generating" in given:
        count = given["generating"]
        rows = given.get("cache_rows", count)
        require("cache_rows", rows, count, _ceiling(count))
    elif "decode_batch" in given:
        count = given["decode_batch"]
        rows = count * (given.get("context", 0.0) + 1.0)
    else:
        refuse_alone(given, GENERATION, "generating or decode_batch")
        count = rows = 0.0
    return {"generating": count, "cache_rows": rows}


def adapted(given: Given, tokens: Num, configured: Given) -> dict[str, Num]:
    """The inputs of an adapter's formulas: the active adapters, the share of tokens that have one, their mean rank.

    tokens: all tokens of the step
    configured: the LoraConfig's numbers, of which `max_lora_rank` is the largest rank
    """
    found: dict[str, Num] = {}
    rows = given.get("adapted_tokens")
    if rows is not None:
        require("adapted_tokens", rows, 0.0, tokens)
        found["adapter_share"] = _share(rows, tokens)
    for name in ("adapters", "distinct_adapters"):
        if name in given:
            require(name, given[name], 0.0, tokens if rows is None else rows, ALLOWED["distinct_adapters"])
            found["active_adapters"] = given[name]
    if "rank_rows" in given:
        rows = configured["adapter_share"] * tokens if rows is None else rows
        rank_rows, largest = given["rank_rows"], configured["max_lora_rank"]
        require("rank_rows", rank_rows, 0.0, rows * largest, most_rank_rows(largest))
        found["rank"] = rank_rows / _divisor(rows)
    return found


def most_rank_rows(largest: Num) -> str:
    """The bound of `rank_rows` in words."""
    return (
        f"at most adapted tokens times {amount_text(largest)}, the largest rank of the LoraConfig or its max_lora_rank"
    )


def _share(rows: Num, tokens: Num) -> Num:
    """rows / tokens, rounded so that `tokens` times it is not above `rows`: kernels round up to whole tiles."""
    share = rows / _divisor(tokens)
    if isinstance(share, float):
        return share if share * tokens <= rows else float(np.nextafter(share, 0.0))
    return np.where(share * tokens <= rows, share, np.nextafter(share, 0.0))


def _one_where(value: Num) -> Num:
    """1 for a value above 0, else 0."""
    if isinstance(value, np.ndarray):
        return np.greater(value, 0.0).astype(float)
    return 1.0 if value > 0.0 else 0.0


def _ceiling(value: Num) -> Num:
    """Infinity for a value above 0, else 0."""
    if isinstance(value, np.ndarray):
        return np.where(value > 0.0, inf, 0.0)
    return inf if value > 0.0 else 0.0


def _divisor(value: Num) -> Num:
    """The value as a divisor: 1 if it is 0."""
    if isinstance(value, np.ndarray):
        return np.where(value > 0.0, value, 1.0)
    return value if value > 0.0 else 1.0
