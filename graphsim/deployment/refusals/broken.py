"""A rule that a deployment breaks, and its sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import InfeasibleError
from graphsim.lora.limits import RULES
from graphsim.lora.profile import EngineProfile
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.symbolic.guard import Figure, Guard


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Broken:
    """A rule that is broken in some scenarios or in all.

    rule: a name of `graphsim.lora.limits.RULES`, or another one where `words` are given
    kind: see `Limit.words`
    where: whether it is broken: one answer, one per scenario, or a formula
    asked, value: the offending argument
    told: numbers and texts for the templates
    allowed: what is allowed instead
    words: of a rule that does not depend on the engine
    always: whether every engine refuses it
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
        """Whether some scenario breaks it. Raises NotRecordable for a formula."""
        return bool(self.where.any() if isinstance(self.where, np.ndarray) else self.where)

    def guard(self, profile: EngineProfile) -> Guard:
        """The refusal as data, whose numbers may be formulas."""
        from graphsim.symbolic.guard import Figure, Guard

        numbers: list[Figure] = []

        def held(value: Any) -> str:
            if isinstance(value, str):
                return value
            numbers.append(Figure(value=value))
            return f"\0{len(numbers) - 1}\0"

        texts = self._sentence(profile, held).split("\0")
        sentence = [numbers[int(part)] if at % 2 else part for at, part in enumerate(texts)]
        return Guard(
            rule=self.rule, about=self.asked, broken=self.where, sentence=tuple(sentence), error=InfeasibleError
        )

    def _sentence(self, profile: EngineProfile, held: Callable[[Any], str]) -> str:
        told = {name: held(value) for name, value in self.told.items()}
        limit = profile.limits.get(self.rule)
        template = self.words or (limit.told(self.kind) if limit else RULES[self.rule][1])
        words, allowed = _filled(template, told).rstrip("."), _filled(self.allowed, told)
        found = f"{self.asked} = {held(self.value)}"
        if self.always:
            return f"{found} is not allowed: {words}; allowed: {allowed}"
        if profile.notes_only:
            return f"{found} breaks a rule of serving engines ({self.rule}): {words}; allowed: {allowed}"
        return f"{found} is not allowed with engine '{profile.name}' ({self.rule}): {words}; allowed: {allowed}"


def _filled(template: str, told: Mapping[str, str]) -> str:
    """A sentence with the names in braces replaced; a profile's own words may hold other braces, which stay."""
    return re.sub(r"\{(\w+)\}", lambda name: told.get(name[1], name[0]), template)
