"""Differences between the settings of two estimates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphsim.brief import value_text
from graphsim.display.nodes import number
from graphsim.display.texts import adapter_text
from graphsim.units import amount_text


def changes_between(one: Mapping[str, Any], other: Mapping[str, Any], scenario: int = 0) -> dict[str, tuple[str, str]]:
    """Texts of the old and new values of the settings that differ, by name; nested settings as `parallelism.tp`.

    one, other: the settings of the two estimates
    scenario: index of the scenario, if settings are arrays
    """
    found: dict[str, tuple[str, str]] = {}
    for name in dict.fromkeys([*one, *other]):
        before, after = one.get(name), other.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inner = changes_between(before, after, scenario)
            found |= {f"{name}.{key}": texts for key, texts in inner.items()}
        elif (texts := (_text(before, scenario), _text(after, scenario)))[0] != texts[1]:
            found[name] = texts
    return found


def changes_text(changes: Mapping[str, tuple[str, str]]) -> str:
    """The changes as text: `batch 1 becomes 8; precision bf16 becomes fp8`."""
    texts = [f"{name} {before} becomes {after}" for name, (before, after) in changes.items()]
    return "; ".join(texts) or "nothing: both have the same settings"


def _text(value: Any, scenario: int) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):  # for example of an adapter, if the other side has none
        return adapter_text(value)
    if isinstance(value, int | float | np.ndarray) and not isinstance(value, bool):
        return amount_text(number(value, scenario))
    return value if isinstance(value, str) else value_text(value)
