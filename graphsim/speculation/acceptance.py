"""How many of the drafted tokens are accepted: probabilities, moments, and draws of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.units import Num, amount_text, as_number, short

Floats = np.ndarray[Any, np.dtype[np.float64]]
AcceptanceRef = Num | list[float] | tuple[float, ...] | Mapping[int, float]
"""One probability for every position, one for each, or a distribution of the number of accepted tokens."""

_EXPECTED = (
    "expected a probability from 0 to 1, a list of them (one for each drafted token, given that those before it were "
    "accepted), or a mapping from numbers of accepted tokens to probabilities that sum to 1"
)


def checked_acceptance(value: Any) -> AcceptanceRef:
    """`value` with plain floats in it. Raises ConfigError for anything else."""
    if isinstance(value, Mapping):
        return _distribution(value)
    if isinstance(value, list | tuple):
        found = [as_number(each) for each in value]
        if not found or not all(isinstance(each, float) and 0.0 <= each <= 1.0 for each in found):
            raise ConfigError(f"speculation.acceptance = {short(value)} is not allowed; {_EXPECTED}")
        return tuple(float(each) for each in value)
    number = as_number(value)
    if number is None or not np.all(np.isfinite(number) & np.greater_equal(number, 0) & np.less_equal(number, 1)):
        raise ConfigError(f"speculation.acceptance = {short(value)} is not allowed; {_EXPECTED}")
    return number


def _distribution(value: Mapping[Any, Any]) -> dict[int, float]:
    found: dict[int, float] = {}
    for count, share in value.items():
        chance = as_number(share)
        whole = isinstance(count, int) and not isinstance(count, bool) and count >= 0
        if not whole or not isinstance(chance, float) or not 0.0 <= chance <= 1.0:
            raise ConfigError(f"speculation.acceptance = {short(dict(value))} is not allowed; {_EXPECTED}")
        found[count] = chance
    if not found or abs(sum(found.values()) - 1.0) > 1e-6:
        raise ConfigError(
            f"speculation.acceptance = {short(dict(value))} is not allowed: its probabilities sum to "
            f"{amount_text(sum(found.values()))}; expected 1"
        )
    return found


def check_covers(acceptance: AcceptanceRef, tokens: Num) -> None:
    """Raise ConfigError where a list is too short for the drafted tokens, or a distribution accepts more of them."""
    most = int(np.max(tokens))
    if isinstance(acceptance, tuple) and len(acceptance) < most:
        raise ConfigError(
            f"speculation.acceptance has {len(acceptance)} probabilities for tokens = {amount_text(most)}; expected "
            "one for each drafted token"
        )
    if isinstance(acceptance, Mapping) and (largest := max(acceptance)) > int(np.min(tokens)):
        raise ConfigError(
            f"speculation.acceptance gives {largest} accepted tokens, but tokens = {int(np.min(tokens))}; "
            "expected at most as many accepted as drafted tokens"
        )


def reached(acceptance: AcceptanceRef, count: int) -> Num:
    """The probability that at least `count` drafted tokens are accepted, from 1 on."""
    if isinstance(acceptance, Mapping):
        return float(sum(share for accepted, share in acceptance.items() if accepted >= count))
    if isinstance(acceptance, tuple | list):
        return float(np.prod(acceptance[:count]))
    return acceptance**count


def tokens_per_step(acceptance: AcceptanceRef, tokens: Num) -> Num:
    """Mean tokens that a verified step yields: the accepted ones and the one that the model itself adds.

    1 + sum over i = 1 ... k of P(at least i accepted); with one probability a for all positions that is
    (1 - a^(k+1)) / (1 - a), Leviathan, Kalman, Matias 2023 (arXiv 2211.17192), equation 1.
    """
    found: Num = sum((_at_least(acceptance, tokens, count) for count in range(1, int(np.max(tokens)) + 2)), start=0.0)
    return found if np.ndim(found) else float(found)


def _at_least(acceptance: AcceptanceRef, tokens: Num, count: int) -> Num:
    """The probability that a step yields at least `count` tokens, of which the last one is the model's own."""
    if count == 1:
        return 1.0
    drafted = np.where(np.greater_equal(tokens, count - 1.0), 1.0, 0.0)[()]
    return drafted * reached(acceptance, count - 1)


def steps_for(acceptance: AcceptanceRef, tokens: Num, wanted: Num) -> Num:
    """Mean number of verified steps until at least `wanted` tokens are generated; excess tokens of the last step are
    dropped.

    N(m) = 1 + sum over j of P(a step yields j) N(m - j), with N = 0 from m = 0 down; beyond EXACT tokens each further
    one takes 1 / (mean of a step), as the renewal theorem says (Feller, An Introduction to Probability Theory and Its
    Applications, vol. 1, chapter XIII).
    """
    most = int(np.max(tokens)) + 1
    reach = [_at_least(acceptance, tokens, count) for count in range(1, most + 1)]
    chances = [some - more for some, more in zip(reach, [*reach[1:], 0.0], strict=True)]
    means: list[Num] = [0.0]
    for count in range(1, int(min(np.max(wanted), EXACT)) + 1):
        before = (means[count - j] * chances[j - 1] for j in range(1, min(most, count) + 1))
        means.append(sum(before, start=1.0))
    exact = np.minimum(wanted, float(EXACT))
    return _picked(means, exact) + (wanted - exact) / tokens_per_step(acceptance, tokens)


EXACT = 1024
"""Tokens up to which the mean number of steps is summed exactly."""


def _picked(means: list[Num], wanted: Num) -> Num:
    """The wanted ones of the means by number of tokens, each possibly over several scenarios."""
    table = np.stack(np.broadcast_arrays(*means))
    place = np.asarray(wanted).astype(int)
    if table.ndim == 1:
        found: Num = table[place][()]
        return found
    places = np.broadcast_to(place, table.shape[1:])[None, :]
    scenarios: Num = np.take_along_axis(table, places, axis=0)[0]
    return scenarios


class AcceptedDraws:
    """Random numbers of tokens that verified steps yield, from 1 to tokens + 1; the same ones for the same seed."""

    BLOCK = 4096

    def __init__(self, acceptance: AcceptanceRef, tokens: int, seed: int = 0) -> None:
        reach = [float(reached(acceptance, count)) for count in range(1, tokens + 1)]
        self._fewer: Floats = np.array([1.0 - chance for chance in reach])  # P(fewer than i accepted), rising in i
        self._random = np.random.default_rng(seed)
        self._block: list[int] = []

    def next(self) -> int:
        """Tokens of one sequence in one step."""
        if not self._block:
            uniform = self._random.random(self.BLOCK)
            self._block = (1 + np.searchsorted(self._fewer, uniform, side="right")).tolist()
        return self._block.pop()

    def several(self, count: int) -> list[int]:
        """Tokens of `count` sequences, each in one step; the same as `count` calls of `next`."""
        block = self._block
        if len(block) >= count:
            found = block[len(block) - count :]
            del block[len(block) - count :]
            found.reverse()
            return found
        return [self.next() for _ in range(count)]

    def steps_for(self, wanted: int) -> int:
        """Steps of one sequence until the wanted number of tokens is generated."""
        steps = 0
        while wanted > 0:
            wanted -= self.next()
            steps += 1
        return steps
