"""`--speculation draft=llama-3.2-1b,tokens=3,acceptance=0.8`."""

from __future__ import annotations

from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.speculation.speculation import Speculation

KEYS = ("draft", "tokens", "acceptance", "draft_tp", "precision", "seed")
NEEDED = ("draft", "tokens", "acceptance")


def speculation_of(text: str) -> Speculation:
    """A speculation from `key=value,…`.

    acceptance: a probability; one for each position, 0.8/0.7/0.6; or a distribution of accepted tokens, 0:0.2/3:0.8
    Raises ConfigError naming the key and what is allowed.
    """
    given: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(f"--speculation: '{part}' is not key=value; expected draft=MODEL,tokens=N,acceptance=P")
        if key not in KEYS:
            raise ConfigError(f"--speculation: '{key}' is not known; {choices_text(key, KEYS)}")
        if key in given:
            raise ConfigError(f"--speculation: {key} is given twice; leave one out")
        given[key] = _value(key, value)
    missing = [key for key in NEEDED if key not in given]
    if missing:
        raise ConfigError(f"--speculation: {', '.join(missing)} missing; expected draft=MODEL,tokens=N,acceptance=P")
    return Speculation(**given)


def _value(key: str, text: str) -> Any:
    if key in ("draft", "precision"):
        return text
    if key != "acceptance":
        return _whole(key, text)
    parts = text.split("/")
    if ":" in text:
        pairs = [part.partition(":") for part in parts]
        return {_whole("acceptance", count): _number(share) for count, _, share in pairs}
    numbers = [_number(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else numbers


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--speculation: {key} = '{text}' is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"--speculation: acceptance = '{text}' is not a number; expected 0.8, 0.8/0.7/0.6 or 0:0.2/3:0.8"
        ) from None
