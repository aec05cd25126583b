"""An engine's own flags on the command line, such as `--max-num-seqs 64`, as its settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError, nearest
from graphsim.ranges import is_range, values_of_part

if TYPE_CHECKING:
    from graphsim.serving.engine_limits import EngineLimits

_SWITCHES = {"true": True, "false": False, "on": True, "off": False, None: True}


def engine_limits(flags: Mapping[str, str | None], options: Iterable[str]) -> EngineLimits:
    """Settings from flags by name without dashes, each with its text or None.

    options: of the command itself, one of which may have been meant
    Raises ConfigError for a flag that no engine has, with the nearest one, or a value that it does not take.
    """
    from graphsim.serving.engine_flags import all_names
    from graphsim.serving.engine_limits import EngineLimits

    known = all_names()
    for flag in flags:
        if flag.replace("-", "_") not in known:
            names = [f"--{name.replace('_', '-')}" for name in sorted(known)]
            near = nearest(flag, [*options, *names])
            hint = "see graphsim serve --help" if near is None else f"did you mean '{near}'?"
            raise ConfigError(f"'--{flag}' is neither an option nor an engine's flag; {hint}")
    try:
        return EngineLimits(**{flag: flag_value(text) for flag, text in flags.items()})
    except ConfigError as error:
        text = as_flags(error)
        bare = next((flag for flag, value in flags.items() if value is None), None)
        if bare is not None and text.startswith(start := f"--{bare.replace('_', '-')} = True is not allowed"):
            text = f"--{bare} needs a value{text.removeprefix(start)}"
        raise ConfigError(text) from None


def as_flags(error: ConfigError) -> str:
    """A complaint of settings by the names that they have on a command line."""
    return re.sub(r"\blimits\.(\w+)", lambda found: "--" + found[1].replace("_", "-"), str(error))


def flag_value(text: str | None) -> Any:
    """A switch, a number, a list of numbers, which may be a range, or a word."""
    if text is None or text.lower() in _SWITCHES:
        return _SWITCHES[None if text is None else text.lower()]
    values = values_or_words(text)
    return values[0] if len(values) == 1 else values


def values_or_words(text: str) -> list[Any]:
    """What lies between commas: switches, numbers, ranges of numbers (see `graphsim.ranges`) or words.

    Raises ConfigError for a range that makes no sense.
    """
    found: list[Any] = []
    for part in map(str.strip, text.split(",")):
        if part.lower() in _SWITCHES:
            found.append(_SWITCHES[part.lower()])
            continue
        try:
            found += values_of_part(part, whole=False)
        except ConfigError:
            if is_range(part):
                raise
            found.append(_number(part))
    return found


def _number(text: str) -> Any:
    """A number that no range holds, such as a negative one; else the word."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number
