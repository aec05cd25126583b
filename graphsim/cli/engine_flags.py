"""Engine settings from an engine's own command-line flags, such as `--max-num-seqs 64`."""

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
    """Engine settings from flags.

    flags: text of each flag, or None, by name without dashes
    options: the command's own options, one of which may have been meant
    Raises ConfigError for a flag that no engine has, naming the nearest one, or for a value that is not allowed.
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
    """The message of an error on settings, with their command-line names."""
    return re.sub(r"\blimits\.(\w+)", lambda found: "--" + found[1].replace("_", "-"), str(error))


def flag_value(text: str | None) -> Any:
    """The value of a flag: a switch, a number, a list of numbers or ranges, or a word."""
    if text is None or text.lower() in _SWITCHES:
        return _SWITCHES[None if text is None else text.lower()]
    values = values_or_words(text)
    return values[0] if len(values) == 1 else values


def values_or_words(text: str) -> list[Any]:
    """Comma-separated values: switches, numbers, ranges of numbers (see `graphsim.ranges`) or words.

    Raises ConfigError for an invalid range.
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
    """The text as a number, including those that ranges do not allow, such as negative ones; else the text itself."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number
