"""The numbers that arithmetic in a model file may use: the model's own fields and the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.files.arithmetic import Expression, parse
from graphsim.files.reading import Fields
from graphsim.models.layers.custom import INPUT, STEP_NAMES
from graphsim.models.yaml import sections
from graphsim.models.yaml.overrides import Overrides
from graphsim.units import amount_text, bounds_text

MODEL_NAMES = (
    "hidden_size", "vocab_size", "max_positions",
    "heads", "kv_heads", "head_dim", "value_dim", "window", "intermediate_size",
)  # fmt: skip
"""Names of the model's own fields; those of attention and MLP are available if the file has these sections."""

LONGEST_NAME = 100
RESERVED = {*MODEL_NAMES, *STEP_NAMES, INPUT, "min", "max", "ceil", "floor"}
MOST_FIELDS = 200


def usable(name: str) -> bool:
    """Whether a text may name a node or a part of its result."""
    return name.isidentifier() and len(name) <= LONGEST_NAME and name != INPUT


def constants(layer: Overrides, model: Fields, hidden: int) -> dict[str, float]:
    """The value of every name that a layer's arithmetic may use."""
    known = {
        "hidden_size": float(hidden),
        "vocab_size": float(model.integer("vocab_size", most=sections.MOST_VOCABULARY)),
        "max_positions": float(model.integer("max_positions", 0, least=0, most=sections.MOST_TOKENS)),
    }
    if "heads" in (section := layer.below("attention")):
        attention = sections.attention(section, hidden)
        for name in ("heads", "kv_heads", "head_dim", "window"):
            known[name] = float(getattr(attention, name))
        known["value_dim"] = float(attention.values)
    if "intermediate_size" in (section := layer.below("mlp")):
        known["intermediate_size"] = float(sections.mlp(section).intermediate)
    return known | _Resolver(_given(layer), known).all()


def _given(layer: Overrides) -> dict[str, tuple[Fields, Any]]:
    """Each of the user's fields with the level that gives it; the most specific level takes precedence."""
    found: dict[str, tuple[Fields, Any]] = {}
    for fields in reversed(layer.below("fields").levels):
        if len(fields.data) > MOST_FIELDS:
            fields.problems.append(
                f"{fields.path} holds {len(fields.data)} entries; allowed: at most {amount_text(MOST_FIELDS)}"
            )
            continue
        for key in fields.data:
            value = fields.raw(key)
            if not isinstance(key, str) or not key.isidentifier() or len(key) > LONGEST_NAME or key in RESERVED:
                fields.problems.append(
                    f"{fields.name(str(key))} is not a usable name; expected letters, digits and _, "
                    f"and none of {', '.join(sorted(RESERVED))}"
                )
            elif value is None:
                fields.problems.append(f"{fields.name(key)} is empty; expected a number or arithmetic")
            else:
                found[key] = fields, value
    return found


class _Resolver:
    """Evaluates fields that may refer to each other, in any order."""

    def __init__(self, given: Mapping[str, tuple[Fields, Any]], known: Mapping[str, float]) -> None:
        self.given, self.known = given, known
        self.done: dict[str, float] = {}
        self.open: list[str] = []

    def all(self) -> dict[str, float]:
        for name in self.given:
            self.value(name)
        return self.done

    def value(self, name: str) -> float:
        if name in self.known:
            return self.known[name]
        if name in self.done:
            return self.done[name]
        fields, raw = self.given[name]
        if name in self.open:
            circle = " -> ".join([*self.open[self.open.index(name) :], name])
            fields.problem(name, f"refers to itself: {circle}")
            return 1.0
        self.open.append(name)
        self.done[name] = self._evaluate(fields, name, raw)
        self.open.pop()
        return self.done[name]

    def _evaluate(self, fields: Fields, name: str, raw: Any) -> float:
        expression = parsed(fields, name, raw, {*self.known, *self.given})
        if expression is None:
            return 1.0
        number = float(expression.evaluate({needed: self.value(needed) for needed in expression.names}))
        if not np.isfinite(number):
            fields.problem(name, "has no finite value")
            return 1.0
        return number


def parsed(fields: Fields, key: str, raw: Any, names: set[str]) -> Expression | None:
    """The expression of a key; None after noting a problem."""
    try:
        return parse(raw, frozenset(names))
    except ConfigError as error:
        fields.problems.append(f"{fields.name(key)}: {error}")
        return None


def size(fields: Fields, key: str, known: Mapping[str, float]) -> Expression | None:
    """The size of a value: arithmetic on the known names and the step's quantities; None if it is not given."""
    raw = fields.raw(key)
    if raw is None:
        return None
    expression = parsed(fields, key, raw, {*known, *STEP_NAMES})
    return expression and expression.bind(known)


def whole(
    fields: Fields,
    key: str,
    known: Mapping[str, float],
    *,
    default: int | None = None,
    least: int = 1,
    most: int = sections.MOST_WIDTH,
) -> int:
    """An integer within bounds, computed by arithmetic on the known names."""
    raw = fields.raw(key)
    allowed = f"a whole number {bounds_text(least, most)}, or arithmetic that yields one"
    if raw is None:
        if default is None:
            fields.problems.append(f"{fields.name(key)} is missing, expected {allowed}")
        return max(least, 1) if default is None else default
    if isinstance(raw, str) and raw in STEP_NAMES:
        fields.problem(key, f"changes from step to step; {choices_text('', known)}")
        return max(least, 1)
    expression = parsed(fields, key, raw, set(known))
    if expression is None:
        return max(least, 1)
    number = float(expression.evaluate(known))
    if not (np.isfinite(number) and number == np.floor(number) and least <= number <= most):
        found = f" ({amount_text(number)})" if isinstance(raw, str) else ""
        fields.problem(key, f"is not allowed{found}; expected {allowed}")
        return max(least, 1)
    return int(number)
