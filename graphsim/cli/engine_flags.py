"""An engine's own flags on the command line, such as `--max-num-seqs 64`, as its settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError

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
            near = get_close_matches(f"--{flag}", [*options, *names], n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else "see graphsim serve --help"
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
    """A switch, a number, a list of numbers, or a word."""
    if text is None or text.lower() in _SWITCHES:
        return _SWITCHES[None if text is None else text.lower()]
    parts = [_number(part) for part in text.split(",")]
    return parts[0] if len(parts) == 1 else parts


def _number(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number
