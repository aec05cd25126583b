"""The number of distinct adapters in a step, from their popularity.

A step holds `requests` requests; each one wants adapter i with probability p_i, or none. Each adapter is present with
probability 1 - (1 - p_i)^requests, and the expected number of distinct ones is the sum of that over the adapters.
Popularities: S-LoRA, arXiv 2311.03285, section 7 (power); Punica, arXiv 2310.18547, section 7 (Zipf 1.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graphsim.errors import ConfigError
from graphsim.units import Num, bounds_text, short

Shares = NDArray[np.float64]
MOST = 1_000_000
"""Largest number of adapters of a pool that are counted one by one."""
APART = 32
"""Number of different shares up to which each is a separate term in a formula."""


def uniform(adapters: int) -> Shares:
    """Shares of equally popular adapters."""
    return np.full(_count(adapters), 1.0 / adapters)


def zipf(adapters: int, exponent: float = 1.5) -> Shares:
    """Shares of adapters, the i-th in proportion to i^-exponent."""
    if not (np.isfinite(exponent) and exponent >= 0):
        raise ConfigError(f"popularity: exponent = {short(exponent)} is not allowed; expected a number from 0")
    weights = np.arange(1.0, _count(adapters) + 1.0) ** -exponent
    return np.asarray(weights / weights.sum())


def power(adapters: int, alpha: float = 1.0) -> Shares:
    """Adapter floor(N x) with x of density alpha x^(alpha - 1): 1 is uniform, smaller is more skewed (S-LoRA)."""
    if not (np.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"popularity: alpha = {short(alpha)} is not allowed; expected a number above 0")
    edges = np.arange(_count(adapters) + 1.0) / adapters
    return np.diff(edges**alpha)


def popularity(kind: str, adapters: int) -> Shares:
    """Shares from a text: `uniform`, `one` (all requests want the first), `zipf:1.5`, `power:0.3`."""
    name, _, text = kind.lower().partition(":")
    if name in ("uniform", "one") and not text:
        shares = uniform(adapters)
        return shares if name == "uniform" else np.eye(1, len(shares))[0]
    try:
        number = float(text) if text else None
    except ValueError:
        number = np.nan
    if name not in ("zipf", "power") or (number is not None and not np.isfinite(number)):
        raise ConfigError(f"popularity = {short(kind)} is not allowed; expected uniform, one, zipf:1.5 or power:0.3")
    made = zipf if name == "zipf" else power
    return made(adapters) if number is None else made(adapters, number)


def shares_of(rates: Sequence[float] | Mapping[str, float]) -> Shares:
    """Shares from counts or rates of each adapter, such as requests per second."""
    values = np.asarray(list(rates.values()) if isinstance(rates, Mapping) else rates, dtype=float)
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values) & (values >= 0)) or not values.sum():
        raise ConfigError(f"popularity: rates = {short(rates)} are not allowed; expected numbers from 0, not all 0")
    return np.asarray(values / values.sum())


def expected_distinct(shares: Shares, requests: Num, base_share: Num = 0.0) -> Num:
    """Expected distinct adapters among `requests` requests; numbers may be arrays over scenarios.

    base_share: part of the requests that want no adapter
    """
    each = (1.0 - np.asarray(base_share, dtype=float))[..., None] * shares
    absent = (1.0 - each) ** np.asarray(requests, dtype=float)[..., None]
    distinct: Num = np.sum(1.0 - absent, axis=-1)[()]
    return distinct


def probability_of_none(requests: Num, base_share: Num) -> Num:
    """The share of steps without any adapter, which skip LoRA."""
    chance: Num = np.power(base_share, requests, dtype=float)
    return chance


def expected_rank(shares: Shares, ranks: Sequence[float]) -> float:
    """Mean rank of the tokens' adapters with different ranks; kernels that pad run at the largest rank instead."""
    if len(ranks) != len(shares):
        raise ConfigError(f"popularity: {len(ranks)} ranks for {len(shares)} adapters; expected one each")
    return float(np.dot(shares, np.asarray(ranks, dtype=float)))


def grouped(shares: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Shares above 0 as (adapters, mean share): up to `APART` different ones, else means of those within a quarter."""
    values = np.asarray(shares, dtype=float)
    values = values[values > 0]
    keys = values if len(np.unique(values)) <= APART else np.floor(np.log(values) / np.log(1.25))
    groups = (values[keys == key] for key in np.unique(keys)[::-1])
    return tuple((float(len(group)), float(group.mean())) for group in groups)


def _count(adapters: int) -> int:
    if isinstance(adapters, bool) or not isinstance(adapters, int | np.integer) or not 1 <= adapters <= MOST:
        raise ConfigError(
            f"popularity: adapters = {short(adapters)} is not allowed; expected a whole number {bounds_text(1, MOST)}"
        )
    return int(adapters)
