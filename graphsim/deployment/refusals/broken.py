"""A rule that a deployment breaks, and the sentence that says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphsim.lora.limits import RULES
from graphsim.lora.profile import EngineProfile
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Broken:
    """A rule that is broken in some scenarios or in all.

    rule: a name of `graphsim.lora.limits.RULES`, or another one where `words` are given; kind: see `Limit.words`
    where: whether it is broken, one answer or one per scenario
    asked, value: what the user wrote that breaks it; told: numbers and texts that the templates name
    allowed: what would do; words: of a rule that no engine has a say in
    always: whether it is refused whatever the engine
    """

    rule: str
    where: Any
    asked: str
    value: Num | str
    told: Mapping[str, Any] = field(default_factory=dict)
    allowed: str
    kind: str = ""
    words: str = ""
    always: bool = False

    @property
    def any(self) -> bool:
        """Whether some scenario breaks it."""
        return bool(self.where.any() if isinstance(self.where, np.ndarray) else self.where)

    def sentence(self, profile: EngineProfile, row: int = 0) -> str:
        """What is wrong in one of the scenarios that break it, counted along the flattened `where`."""
        told = {name: _text(_at(value, self.where, row)) for name, value in self.told.items()}
        limit = profile.limits.get(self.rule)
        template = self.words or (limit.told(self.kind) if limit else RULES[self.rule][1])
        words, allowed = _filled(template, told).rstrip("."), _filled(self.allowed, told)
        found = f"{self.asked} = {_text(_at(self.value, self.where, row))}"
        if self.always:
            return f"{found} is not allowed: {words}; allowed: {allowed}"
        if profile.notes_only:
            return f"{found} breaks a rule of serving engines ({self.rule}): {words}; allowed: {allowed}"
        return f"{found} is not allowed with engine '{profile.name}' ({self.rule}): {words}; allowed: {allowed}"

    def sentences(self, profile: EngineProfile, shape: tuple[int, ...]) -> NDArray[np.object_]:
        """The sentence of each scenario that breaks it, "" for all others."""
        found = np.full(shape, "", dtype=object)
        where = np.broadcast_to(np.asarray(self.where), shape)
        if not where.any():
            return found
        numbers = [np.asarray(value) for value in (self.value, *self.told.values()) if not isinstance(value, str)]
        columns = [np.broadcast_to(value, shape)[where] for value in numbers]
        alike = np.unique(np.stack(columns), axis=1, return_index=True, return_inverse=True) if columns else None
        whole = Broken(**{name: _spread(getattr(self, name), shape) for name in self.__slots__} | {"where": where})
        rows = np.flatnonzero(where)
        if alike is None:
            found[where] = whole.sentence(profile, int(rows[0]))
            return found
        texts = np.array([whole.sentence(profile, int(rows[first])) for first in alike[1]], dtype=object)
        found[where] = texts[np.ravel(alike[2])]
        return found


def _spread(value: Any, shape: tuple[int, ...]) -> Any:
    """A value over all scenarios, where it is an array over some of them."""
    if isinstance(value, Mapping):
        return {name: _spread(entry, shape) for name, entry in value.items()}
    return np.broadcast_to(value, shape) if isinstance(value, np.ndarray) else value


def _at(value: Any, where: Any, row: int) -> Any:
    """The value in one scenario."""
    if not isinstance(value, np.ndarray) or not value.ndim:
        return value
    return np.broadcast_to(value, np.broadcast_shapes(np.shape(where), value.shape)).flat[row]


def _filled(template: str, told: Mapping[str, str]) -> str:
    """A sentence with the names in braces replaced; a profile's own words may hold other braces, which stay."""
    return re.sub(r"\{(\w+)\}", lambda name: told.get(name[1], name[0]), template)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    number = float(value)
    return f"{number:.0f}" if number == round(number) else f"{number:g}"
