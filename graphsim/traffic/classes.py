"""Classes of requests with their own shares, priorities, latency limits and lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.brief import settings_text
from graphsim.errors import ConfigError
from graphsim.traffic.draws import Draws
from graphsim.traffic.lengths import Length, read_length
from graphsim.traffic.table import Ints
from graphsim.units import as_number, checked_number, short

LIMITS = ("ttft_s", "tpot_s", "e2e_s")


@dataclass(frozen=True, slots=True)
class RequestClass:
    """A class of requests with its own service level.

    name: the class's name
    share: its part of the requests (or conversations), relative to the shares of the other
        classes
    priority: requests with a lower number go first, in engines that schedule by priority
    ttft_s, tpot_s, e2e_s: latency limits in seconds that its requests should meet; None for no limit
    input_tokens, output_tokens: its own lengths, in any form that `Traffic` takes; None for those of the traffic
    """

    name: str
    share: float = 1.0
    priority: int = 0
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    input_tokens: Any = None
    output_tokens: Any = None

    def __repr__(self) -> str:
        return settings_text(self)

    def __post_init__(self) -> None:
        """Raise ConfigError for an invalid share, limit or length."""
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"RequestClass: name = {short(self.name)} is not allowed; expected a text")
        where = f"RequestClass '{self.name}'"
        checked_number(f"{where}: share", self.share, 0.0, whole=False, one=True)
        checked_number(f"{where}: priority", self.priority, -(10**9), 10**9, one=True)
        for limit in LIMITS:
            value = getattr(self, limit)
            number = as_number(value)
            if value is not None and (not isinstance(number, float) or not 0.0 < number < np.inf):
                raise ConfigError(f"{where}: {limit} = {short(value)} is not allowed; expected seconds above 0")
        for length in ("input_tokens", "output_tokens"):
            if getattr(self, length) is not None:
                pairs = length == "input_tokens" and self.output_tokens is None
                object.__setattr__(self, length, read_length(f"{where}: {length}", getattr(self, length), pairs=pairs))

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}

    def length(self, name: str) -> Length | None:
        """The class's own `input_tokens` or `output_tokens`; None if it has none."""
        found: Length | None = getattr(self, name)
        return found


def read_classes(classes: Any, priorities: Any) -> tuple[RequestClass, ...]:
    """The classes given by a user, or one class per priority.

    classes: a list of classes
    priorities: {priority: share}
    Raises ConfigError if both are given, for duplicate names, and if no class has a share.
    """
    if priorities is not None:
        if classes:
            raise ConfigError("Traffic: classes have priorities of their own; give classes or priorities, not both")
        if not isinstance(priorities, Mapping) or not priorities:
            expected = "{priority: share of the requests, …}"
            raise ConfigError(f"Traffic: priorities = {short(priorities)} is not allowed; expected {expected}")
        classes = [RequestClass(f"priority {level}", share, level) for level, share in priorities.items()]
    one = isinstance(classes, RequestClass)
    if not one and (not isinstance(classes, Sequence) or not all(isinstance(each, RequestClass) for each in classes)):
        raise ConfigError(f"Traffic: classes = {short(classes)} is not allowed; expected a list of RequestClass")
    found = (classes,) if one else tuple(classes)
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"Traffic: classes: the name '{twice}' is used twice; expected a different name for each")
    if found and not sum(each.share for each in found) > 0:
        raise ConfigError("Traffic: classes: no class has a share above 0")
    return found


def draw_classes(classes: Sequence[RequestClass], count: int, draws: Draws) -> Ints:
    """Index of each request's class; 0 for all if there are no classes."""
    if len(classes) < 2:
        return np.zeros(count, dtype=np.int64)
    return draws.choice(np.array([each.share for each in classes], dtype=float), count)


def priority_of(classes: Sequence[RequestClass], group: Ints) -> Ints:
    """The priority of each request."""
    levels = np.array([each.priority for each in classes] or [0], dtype=np.int64)
    return levels[group]
