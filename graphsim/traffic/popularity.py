"""Adapters of requests: their popularity, its change over time, and their ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphsim.brief import settings_text
from graphsim.errors import ConfigError, choices_text
from graphsim.lora.popularity import MOST, Shares, popularity, shares_of
from graphsim.traffic.draws import Draws, placed
from graphsim.traffic.table import BASE, Floats, Ints
from graphsim.units import as_number, bounds_text, checked_number, short

MOST_RANK = 10**5
ROUND_ROBIN = ("round_robin", "round-robin", "distinct")
"""Adapters in turn: `--lora-assignment round-robin` of vllm bench serve, `distinct` of SGLang's bench_serving."""
KINDS = ("uniform", "one", "zipf", "power")
GEOMETRIC = ("geometric", "skewed")
"""Popularity decreases by a constant factor from each adapter to the next: `skewed` of SGLang's bench_serving, whose
`--lora-zipf-alpha` is the base of a power, not an exponent (`lora_zipf_alpha**-i`, 1.5 by default)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Popularity that changes over time.

    popularity: the popularity at the start: a text such as `zipf:1.2`, or a share for each adapter
    every_s, shift: every `every_s` seconds the ranking rotates by `shift` adapters, so that another adapter becomes the
        most popular
    to, over_s: a second popularity, which is reached gradually within `over_s` seconds
    """

    popularity: Any = "uniform"
    every_s: float | None = None
    shift: int = 1
    to: Any = None
    over_s: float | None = None

    def __repr__(self) -> str:
        return settings_text(self)

    def __post_init__(self) -> None:
        """Raise ConfigError unless exactly one kind of change is given."""
        moves = self.to is not None and self.over_s is not None
        if (self.to is None) != (self.over_s is None) or moves == (self.every_s is not None):
            raise ConfigError(
                "Drift: expected every_s (ranks move on), or to and over_s (popularity moves), and not both"
            )
        for name in ("every_s", "over_s"):
            if getattr(self, name) is not None:
                checked_number(f"Drift: {name}", getattr(self, name), 1e-9, whole=False, one=True)
        checked_number("Drift: shift", self.shift, -MOST, MOST, one=True)
        object.__setattr__(self, "popularity", read_popularity(self.popularity))
        object.__setattr__(self, "to", None if self.to is None else read_popularity(self.to))


Popularity = str | tuple[float, ...] | Drift


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The registered adapters and their popularity.

    names: name of each adapter
    popularity: a text, a rate or share per adapter, or a drift
    base_share: fraction of the requests that use no adapter
    ranks: rank of each adapter; None if not given
    """

    names: tuple[str, ...] = ()
    popularity: Popularity = "uniform"
    base_share: float = 0.0
    ranks: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rates(self) -> Floats | None:
        """Rate of each adapter if rates were given, without one for the base model; else None."""
        return np.array(self.popularity) if isinstance(self.popularity, tuple) else None

    def drawn(self, at_s: Floats, draws: Draws, moved: Draws) -> Ints:
        """Random adapters for requests or conversations.

        at_s: their start times in seconds
        draws, moved: random numbers for the choice and for the drift
        Returns adapter indices, BASE for none.
        """
        count = len(at_s)
        if not len(self):
            return np.full(count, BASE, dtype=np.int64)
        chance = draws.uniform(count)
        found = self._ranked(chance, at_s, moved)
        return np.where(draws.uniform(count) >= self.base_share, found, BASE) if self.base_share else found

    def _ranked(self, chance: Floats, at_s: Floats, moved: Draws) -> Ints:
        if isinstance(self.popularity, Drift):
            return _drifted(self.popularity, len(self), chance, at_s, moved)
        if self.popularity in ROUND_ROBIN:
            return np.arange(len(at_s)) % len(self)
        return placed(shares(self.popularity, len(self)), chance)

    def resized(self, count: int) -> Adapters:
        """The same with another number of adapters, with ranks in turn.

        Raises ConfigError if each adapter has its own rate.
        """
        drift = self.popularity
        listed = (drift.popularity, drift.to) if isinstance(drift, Drift) else (drift,)
        if any(isinstance(each, tuple) for each in listed):
            raise ConfigError(f"with_adapters({count}): {len(self)} adapters have a rate each; expected a text such as "
                              "'zipf:1.2' as popularity")  # fmt: skip
        ranks = None if self.ranks is None else tuple(self.ranks[i % len(self.ranks)] for i in range(count))
        return replace(self, names=_named(count), ranks=ranks)


def read_adapters(adapters: Any, given: Any, base_share: Any, ranks: Any, seed: int) -> Adapters:
    """The adapters described by a user's arguments.

    adapters: their number or names
    given: popularity
    base_share: fraction of the requests that use no adapter
    ranks: one number for all, a list, `8/16/32` (assigned in turn), or {rank: share of the adapters}
    seed: seed of the random assignment of ranks
    Raises ConfigError for arguments that contradict each other.
    """
    names = _named_by(adapters, given)
    popularity = read_popularity(_in_order(names, given) if isinstance(given, Mapping) else given)
    checked_number("Traffic: base_share", base_share, 0.0, 1.0, whole=False, one=True)
    if not names and ranks is not None:
        raise ConfigError(f"Traffic: ranks = {short(ranks)} describe adapters, but there are none")
    if not names and popularity != "uniform":
        raise ConfigError(f"Traffic: popularity = {short(given)} describes adapters, but there are none")
    if names:
        for each in (popularity.popularity, popularity.to) if isinstance(popularity, Drift) else (popularity,):
            if each is not None and each not in ROUND_ROBIN:
                shares(each, len(names))
    found = read_ranks(ranks, len(names), seed)
    return Adapters(names=names, popularity=popularity, base_share=float(base_share), ranks=found)


def read_popularity(given: Any) -> Popularity:
    """The popularity given by a user. Raises ConfigError for anything else."""
    if isinstance(given, str | Drift):
        return given
    if isinstance(given, Sequence | np.ndarray) and _numbers(given):
        return tuple(float(rate) for rate in given)
    raise _not_allowed(given)


def shares(given: str | tuple[float, ...], count: int, what: str = "adapters") -> Shares:
    """The shares of `count` adapters.

    given: a text such as `zipf:1.2`, or a rate or share per adapter
    count: number of adapters
    what: name of the adapters, for messages
    Raises ConfigError for another number of rates, or an unknown text.
    """
    if not isinstance(given, str):
        if len(given) != count:
            raise ConfigError(f"popularity has {len(given)} rates for {count} {what}; expected one each")
        return shares_of(given)
    name, _, text = given.lower().partition(":")
    if name in GEOMETRIC:
        return geometric(count, given, text or "1.5")
    if name not in KINDS:
        raise _not_allowed(given)
    return popularity(given, count)


def geometric(count: int, given: str, text: str) -> Shares:
    """Shares that decrease by the factor in `text` from each adapter to the next.

    Raises ConfigError unless the factor is a number from 1.
    """
    try:
        base = float(text)
    except ValueError:
        base = 0.0
    if not 1.0 <= base < np.inf:
        raise ConfigError(f"popularity = {short(given)} is not allowed; expected geometric:1.5, a number from 1")
    weights = np.exp(-np.log(base) * np.arange(count))
    return np.asarray(weights / weights.sum())


def read_ranks(ranks: Any, adapters: int, seed: int) -> tuple[int, ...] | None:
    """The rank of each adapter; None if not given. Raises ConfigError for ranks below 1 and lists of another length."""
    if ranks is None:
        return None
    if isinstance(ranks, Mapping):
        return _shared_ranks(ranks, adapters, seed)
    if isinstance(ranks, str):
        cycle = [_rank(number if (number := _whole(part)) is not None else part, ranks) for part in ranks.split("/")]
        return tuple(cycle[i % len(cycle)] for i in range(adapters))
    if isinstance(ranks, Sequence) or np.ndim(ranks):
        if len(ranks) != adapters:
            expected = "one each, or '8/16/32' to deal them out in turn"
            raise ConfigError(f"Traffic: {len(ranks)} ranks for {adapters} adapters; expected {expected}")
        return tuple(_rank(rank, ranks) for rank in ranks)
    return (_rank(ranks, ranks),) * adapters


def _drifted(drift: Drift, adapters: int, chance: Floats, at_s: Floats, moved: Draws) -> Ints:
    if not np.all(np.isfinite(at_s)):
        raise ConfigError("Drift: a closed loop has no times at which requests are sent; drift needs an open one")
    start = placed(shares(drift.popularity, adapters), chance)
    if drift.every_s is not None:
        return np.asarray((start + (at_s // drift.every_s).astype(np.int64) * drift.shift) % adapters)
    over = np.clip(at_s / (drift.over_s or 1.0), 0.0, 1.0)
    return np.where(moved.uniform(len(at_s)) < over, placed(shares(drift.to, adapters), chance), start)


def _named_by(adapters: Any, given: Any) -> tuple[str, ...]:
    """Names of the adapters, from a list, from a mapping of rates, or from their number."""
    if isinstance(adapters, Sequence) and not isinstance(adapters, str):
        names = tuple(adapters)
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ConfigError(
                f"Traffic: adapters = {short(adapters)} is not allowed; expected a name for each, or a number"
            )
        return names
    count = int(checked_number("Traffic: adapters", adapters, 0, MOST, one=True))
    if isinstance(given, Mapping):
        if count not in (0, len(given)):
            raise ConfigError(f"Traffic: popularity has {len(given)} rates for {count} adapters; expected one each")
        return tuple(str(name) for name in given)
    listed = not isinstance(given, str) and np.ndim(given) == 1
    return _named(len(given) if not count and listed else count)


def _in_order(names: tuple[str, ...], rates: Mapping[Any, Any]) -> list[Any]:
    """Rates in the order of the names; an adapter without a rate is never requested."""
    unknown = [str(name) for name in rates if str(name) not in names]
    if unknown:
        raise ConfigError(f"Traffic: popularity names the adapter '{unknown[0]}'; {choices_text(unknown[0], names)}")
    return [{str(name): rate for name, rate in rates.items()}.get(name, 0.0) for name in names]


def _named(count: int) -> tuple[str, ...]:
    return tuple(f"adapter-{number}" for number in range(count))


def _numbers(given: Any) -> bool:
    found = as_number(given)
    return isinstance(found, np.ndarray) and bool(np.all(np.isfinite(found) & (found >= 0))) and found.sum() > 0


def _not_allowed(given: Any) -> ConfigError:
    expected = "uniform, one, zipf:1.2, power:0.3, geometric:1.5, round_robin, a rate of each (not all 0) or a Drift"
    return ConfigError(f"popularity = {short(given)} is not allowed; expected {expected}")


def _whole(text: str) -> int | None:
    return int(text) if text.strip().isascii() and text.strip().isdigit() else None


def _rank(rank: Any, given: Any) -> int:
    number = as_number(rank)
    if not isinstance(number, float) or not 1 <= number <= MOST_RANK or number != int(number):
        raise ConfigError(
            f"Traffic: ranks = {short(given)}: {short(rank)} is not allowed; expected whole numbers "
            f"{bounds_text(1, MOST_RANK)}"
        )
    return int(number)


def _shared_ranks(ranks: Mapping[Any, Any], adapters: int, seed: int) -> tuple[int, ...]:
    """Ranks in proportion to their shares, rounded by largest remainders, and assigned to adapters at random."""
    part = shares_of(list(ranks.values())) * adapters if ranks else np.zeros(0)
    if not ranks:
        raise ConfigError("Traffic: ranks = {} is not allowed; expected {rank: share of the adapters, …}")
    counts = np.floor(part).astype(np.int64)
    counts[np.argsort(counts - part, kind="stable")[: adapters - counts.sum()]] += 1
    every = np.repeat([_rank(rank, ranks) for rank in ranks], counts)
    order = np.argsort(Draws(seed, "ranks").uniform(adapters), kind="stable")
    return tuple(int(rank) for rank in every[order])
