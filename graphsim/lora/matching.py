"""How target names are interpreted, and the largest rank."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

from graphsim.errors import ConfigError
from graphsim.units import short

MAX_RANK = 65_536
"""The largest plausible rank."""


class Matching(Enum):
    """How target names are interpreted.

    NAMES: the LoRA document's words first, PEFT's rules for all others; PEFT: PEFT's rules only
    """

    NAMES = "names"
    PEFT = "peft"


def matched(
    pattern: str, path: str, field: str, how: Callable[[str, str], re.Match[str] | None] = re.match
) -> re.Match[str] | None:
    """The match of a user's regular expression. Raises ConfigError naming the field for an invalid one."""
    try:
        return how(pattern, path)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"lora.{field}: {short(pattern)} is not a regular expression ({error})") from None
