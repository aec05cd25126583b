"""Lengths of prompts and answers in tokens: numbers, ranges, samples and distributions.

The meaning of a range ratio depends on the client: `vllm bench serve` draws from floor(L (1 - r)) to ceil(L (1 + r))
(`vllm-project/vllm:vllm/benchmarks/datasets/random.py@237145e`), SGLang's bench_serving and InferenceMAX's client from
max(int(r L), 1) to L (`compute_random_lens` there). All of them include both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log, sqrt
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.traffic.draws import Draws
from graphsim.traffic.table import Floats, Ints
from graphsim.units import amount_text, as_number, bounds_text, checked_number, short

CLIENTS = ("vllm", "sglang", "inferencemax")
LONGEST = 10**7
"""Maximum number of tokens of a prompt or an answer."""
EXPECTED = "a number, a range (low, high), a list, a RangeRatio, a distribution such as 'lognormal:mean=222,median=152'"


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRatio:
    """Lengths drawn uniformly around or below a given one, as with `--random-range-ratio` of a benchmark client."""

    tokens: int
    ratio: float
    client: str = "vllm"

    def __post_init__(self) -> None:
        if self.client not in CLIENTS:
            raise ConfigError(f"RangeRatio: client = {short(self.client)} is not known; {choices_text(None, CLIENTS)}")
        checked_number("RangeRatio: tokens", self.tokens, 1, LONGEST, one=True)
        checked_number("RangeRatio: ratio", self.ratio, 0.0, 1.0, whole=False, one=True)
        if self.client == "vllm" and self.ratio == 1.0:
            raise ConfigError("RangeRatio: ratio = 1.0 is not allowed with vllm; expected a number from 0 to below 1")

    @property
    def bounds(self) -> tuple[int, int]:
        """The shortest and the longest length, in tokens."""
        if self.client == "vllm":
            return max(floor(self.tokens * (1.0 - self.ratio)), 1), max(ceil(self.tokens * (1.0 + self.ratio)), 1)
        return max(int(self.tokens * self.ratio), 1), self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A distribution by name; values outside the range from low to high are clipped."""

    name: str
    numbers: tuple[tuple[str, float], ...]
    low: float = 1.0
    high: float = LONGEST

    def values(self, count: int, draws: Draws) -> Floats:
        """Random values, not rounded."""
        return np.clip(SHAPES[self.name][0](dict(self.numbers), count, draws), self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Values to draw from with replacement: lengths, or pairs of prompt and answer length."""

    values: tuple[Any, ...]

    @property
    def pairs(self) -> bool:
        """Whether the values are pairs."""
        return isinstance(self.values[0], tuple)


Length = int | tuple[int, int] | RangeRatio | Spread | Sample | Callable[..., Any]


def read_length(name: str, given: Any, *, pairs: bool = False) -> Length:
    """A length given by a user: anything that `EXPECTED` lists, an object with `rvs(size, random_state)` as in SciPy,
    or a function of (generator, count).

    name: the argument's name
    given: its value
    pairs: whether a list of (input, output) is allowed
    Raises ConfigError for anything else.
    """
    if isinstance(given, RangeRatio | Spread | Sample):
        return given
    if isinstance(given, str):
        return read_spread(name, given)
    if callable(getattr(given, "rvs", None)):
        return _Rvs(given)
    if callable(given):
        found: Callable[..., Any] = given
        return found
    if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], tuple):
        low = checked_number(f"{name}: low", given[0], 1, LONGEST, one=True)
        return low, checked_number(f"{name}: high", given[1], low, LONGEST, one=True)
    if isinstance(as_number(given), float):
        return int(checked_number(name, given, 1, LONGEST, one=True))
    return _read_sample(name, given, pairs)


def draw_lengths(name: str, length: Length, count: int, draws: Draws) -> Ints:
    """Random lengths: integers from 1. Raises ConfigError if a user's own distribution gives less."""
    if isinstance(length, int):
        return np.full(count, length, dtype=np.int64)
    if isinstance(length, tuple):
        return draws.integers(*length, count)
    if isinstance(length, RangeRatio):
        return draws.integers(*length.bounds, count)
    if isinstance(length, Sample):
        listed: Ints = np.array(length.values, dtype=np.int64)
        chosen: Ints = listed[draws.integers(0, len(length.values) - 1, count)]
        return chosen
    if isinstance(length, Spread):
        return np.maximum(np.rint(length.values(count, draws)), 1.0).astype(np.int64)
    found: Any = np.asarray(length(draws.generator, count))
    if found.shape != (count,) or found.dtype.kind not in "iuf" or not np.all(np.isfinite(found)):
        raise ConfigError(f"{name}: the distribution gave {short(found)} for {count} requests; expected a number each")
    if count and not 0.5 <= found.min() <= found.max() <= LONGEST:
        raise ConfigError(
            f"{name}: the distribution gave {amount_text(found.min())} to {amount_text(found.max())}; expected "
            f"{bounds_text(1, LONGEST)}"
        )
    return np.asarray(np.maximum(np.rint(found), 1), dtype=np.int64)


def read_spread(name: str, text: str, *, least: float = 1.0) -> Spread:
    """The distribution in a text with name and parameters, such as `gamma:mean=222,cv=0.8,high=1024`.

    name: the argument's name
    text: the text
    least: default of `low`
    Raises ConfigError for any other text.
    """
    shape, _, listed = text.partition(":")
    if shape not in SHAPES:
        raise ConfigError(f"{name} = {short(text)}: '{shape}' is not a distribution; {choices_text(shape, SHAPES)}")
    numbers: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in listed.split(","))):
        key, _, value = part.partition("=")
        try:
            numbers[key.strip()] = float(value)
        except ValueError:
            raise ConfigError(f"{name} = {short(text)}: '{part}' is not allowed; expected NAME=NUMBER") from None
    needed = SHAPES[shape][1]
    limits = {key: numbers.pop(key) for key in ("low", "high") if key in numbers and key not in needed}
    if numbers.keys() != set(needed) or not all(0.0 <= value < inf for value in (*numbers.values(), *limits.values())):
        wanted = ",".join(f"{key}=…" for key in needed)
        raise ConfigError(f"{name} = {short(text)} is not allowed; expected '{shape}:{wanted}', numbers from 0")
    found = Spread(name=shape, numbers=tuple(sorted(numbers.items())), **{"low": least, **limits})
    _check(name, text, found)
    return found


def mean_of(length: Length) -> float | None:
    """The mean if it is known without drawing; else None."""
    if isinstance(length, int):
        return float(length)
    if isinstance(length, RangeRatio | tuple):
        low, high = length.bounds if isinstance(length, RangeRatio) else length
        return (low + high) / 2.0
    return float(np.mean(length.values, axis=0).flat[0]) if isinstance(length, Sample) else None


def length_text(length: Length) -> str:
    """A length as readable text."""
    if isinstance(length, int):
        return f"{length}"
    if isinstance(length, RangeRatio | tuple):
        low, high = length.bounds if isinstance(length, RangeRatio) else length
        return f"{low} to {high}"
    if isinstance(length, Spread):
        return f"{length.name}:" + ",".join(f"{key}={value:.12g}" for key, value in length.numbers)
    return f"drawn from {len(length.values)} samples" if isinstance(length, Sample) else "of a distribution"


def _read_sample(name: str, given: Any, pairs: bool) -> Sample:
    kind = "numbers" if not pairs else "numbers, or of pairs (input, output)"
    try:
        values = np.asarray(given if not isinstance(given, Mapping) else None)
        values = values.astype(float) if values.dtype.kind in "iuf" and not np.ma.is_masked(given) else np.array(np.nan)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    shaped = values.ndim == 1 or (pairs and values.ndim == 2 and values.shape[1] == 2)
    if not shaped or not values.size or isinstance(given, Mapping):
        raise ConfigError(f"{name} = {short(given)} is not allowed; expected {EXPECTED}; lists are of {kind}")
    if not np.all((values >= 1) & (values <= LONGEST) & (values == np.floor(values))):
        raise ConfigError(
            f"{name}: the list has {amount_text(_worst(values))}; expected whole numbers {bounds_text(1, LONGEST)}"
        )
    whole = values.astype(np.int64).tolist()
    return Sample(values=tuple(map(tuple, whole)) if values.ndim == 2 else tuple(whole))


def _worst(values: Floats) -> float:
    bad = values[~((values >= 1) & (values <= LONGEST) & (values == np.floor(values)))]
    return float(bad.flat[0])


@dataclass(frozen=True, slots=True)
class _Rvs:
    """Adapts an object with `rvs` to a function of (generator, count)."""

    distribution: Any

    def __call__(self, generator: np.random.Generator, count: int) -> Any:
        return self.distribution.rvs(size=count, random_state=generator)


def _check(name: str, text: str, spread: Spread) -> None:
    numbers = dict(spread.numbers)
    problem = ""
    if spread.low > spread.high or numbers.get("low", 0.0) > numbers.get("high", inf):
        problem = "low is above high"
    elif spread.name == "lognormal" and not 0 < numbers["median"] <= numbers["mean"]:
        problem = "the mean of a lognormal is not below its median, and both are above 0"
    elif numbers.get("mean", 1.0) <= 0 or numbers.get("cv", 1.0) < 1e-3:
        problem = "mean is above 0, and cv from 0.001"
    elif spread.name == "zipf" and (numbers["low"] < 1 or numbers["high"] > 10**6):
        problem = f"low is from 1, and high up to {amount_text(10**6)}"
    if problem:
        raise ConfigError(f"{name} = {short(text)} is not allowed: {problem}")


def _lognormal(numbers: Mapping[str, float], count: int, draws: Draws) -> Floats:
    """Lognormal random numbers; the mean is median * exp(sigma^2 / 2)."""
    sigma = sqrt(2.0 * log(numbers["mean"] / numbers["median"]))
    return np.asarray(numbers["median"] * np.exp(sigma * draws.normal(count)))


def _zipf(numbers: Mapping[str, float], count: int, draws: Draws) -> Floats:
    """Random integers from low to high with probabilities in proportion to value^-exponent."""
    values = np.arange(ceil(numbers["low"]), floor(numbers["high"]) + 1, dtype=float)
    return values[draws.choice(values ** -numbers["exponent"], count)]


Shape = Callable[[Mapping[str, float], int, Draws], Floats]
SHAPES: Mapping[str, tuple[Shape, Sequence[str]]] = {
    "constant": (lambda numbers, count, draws: np.full(count, numbers["value"]), ("value",)),
    "uniform": (
        lambda numbers, count, draws: numbers["low"] + (numbers["high"] - numbers["low"]) * draws.uniform(count),
        ("low", "high"),
    ),
    "exponential": (lambda numbers, count, draws: numbers["mean"] * draws.exponential(count), ("mean",)),
    "normal": (
        lambda numbers, count, draws: numbers["mean"] + numbers["std"] * draws.normal(count),
        ("mean", "std"),
    ),
    "lognormal": (_lognormal, ("mean", "median")),
    "gamma": (lambda numbers, count, draws: numbers["mean"] * draws.gamma(numbers["cv"] ** -2, count), ("mean", "cv")),
    "zipf": (_zipf, ("exponent", "low", "high")),
}
"""For each distribution, how it is drawn and its parameters; cv is the standard deviation divided by the mean."""
