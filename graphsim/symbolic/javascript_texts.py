"""Functions of JavaScript that share their text: differences become arguments, the rest is written out.

A text refers to numbers, tables and functions by position, as written by `held`. Functions with the same text are
printed as one function of the differing positions, so that common numbers, or positions with equal values, cost nothing
(anti-unification: Plotkin, Machine Intelligence 5, 1970).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field

_PLACE = re.compile("\0([a-z])([0-9]+)\0")

_ALONE = re.compile(r"(?<![\w$])\(([a-z]\w*)\)")
"""A name in parentheses that are not those of a call."""

Parts = tuple[float | str, ...]
"""Numbers as floats, tables and functions by name."""


def held(kind: str, place: int) -> str:
    """A reference in a text: `n` to a number or name, `w` to a factor in front of a term, `s` to a summand."""
    return f"\0{kind}{place}\0"


@dataclass(slots=True, kw_only=True)
class _Shape:
    """A text, and each function with it: its name, and the value at each position."""

    text: str
    functions: list[tuple[str, Parts]] = field(default_factory=list)


class Texts:
    """Lines of a script in the order of request, without duplicates."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Parts], str] = {}
        self._shapes: dict[str, _Shape] = {}
        self._lines: list[tuple[str, _Shape | str]] = []

    def constant(self, kind: str, text: str) -> str:
        """The name of a constant; kind: the letter that its name begins with."""
        if (text, ()) not in self._known:
            name = self._known[text, ()] = f"{kind}{len(self._known)}"
            self._lines.append((name, text))
        return self._known[text, ()]

    def function(self, text: str, parts: Parts) -> str:
        """The name of the function of a text with the given values at its positions."""
        if (text, parts) not in self._known:
            name = self._known[text, parts] = f"k{len(self._known)}"
            shape = self._shapes.setdefault(text, _Shape(text=text))
            shape.functions.append((name, parts))
            self._lines.append((name, shape))
        return self._known[text, parts]

    @property
    def script(self) -> str:
        """All lines; numbers that several functions receive get names."""
        plans = {shape.text: _plan(shape) for shape in self._shapes.values()}
        uses = Counter(value for plan in plans.values() for given in plan.given for value in given)
        pool = _Pool(uses)
        lines: list[str] = []
        written: dict[str, list[str]] = {}
        for name, of in self._lines:
            if isinstance(of, str):
                lines.append(f"const {name}={of};")
                continue
            plan = plans[of.text]
            if not plan.given[0]:
                lines.append(f"const {name}={plan.text};")
                continue
            if of.text not in written:
                written[of.text] = []
                plan.name = f"F{len(written)}"
                lines.append(f"const {plan.name}=({','.join(plan.arguments)})=>{plan.text};")
            given = plan.given[len(written[of.text])]
            written[of.text].append(name)
            lines.append(f"const {name}={plan.name}({','.join(map(pool.text, given))});")
        return "\n".join([*pool.lines, *lines])


@dataclass(slots=True, kw_only=True)
class _Plan:
    """A text whose positions are literals or arguments; given: the argument values, by function."""

    text: str
    arguments: list[str]
    given: list[Parts]
    name: str = ""


def _plan(shape: _Shape) -> _Plan:
    columns = list(zip(*[parts for _, parts in shape.functions], strict=True))
    names: dict[Parts, str] = {}
    for column in columns:
        if any(value != column[0] for value in column):
            names.setdefault(column, f"c{len(names)}")
    text = _PLACE.sub(lambda found: _written(found[1], columns[int(found[2])], names), shape.text)
    rows = zip(*names, strict=True) if names else [()] * len(shape.functions)
    text = _ALONE.sub(r"\1", text)
    return _Plan(text=text, arguments=list(names.values()), given=[tuple(row) for row in rows])


def _written(kind: str, column: Parts, names: dict[Parts, str]) -> str:
    """A position in a text: an argument, or the common value; a factor of 1 and a summand of 0 are left out, without
    any change in rounding.
    """
    if column in names:
        return names[column] + _BEHIND[kind]
    if column[0] == _NOTHING.get(kind):
        return ""
    return as_text(column[0]) + _BEHIND[kind]


_BEHIND = {"n": "", "w": "*", "s": "+"}
_NOTHING = {"w": 1.0, "s": 0.0}


class _Pool:
    """Names for long numbers that are used more than once, the most used ones first."""

    def __init__(self, uses: Counter[float | str]) -> None:
        often = [value for value, count in uses.most_common() if isinstance(value, float) and count > 1]
        self._names = {value: f"p{at}" for at, value in enumerate(v for v in often if len(as_text(v)) > _SHORT)}

    def text(self, value: float | str) -> str:
        """The value's name if it has one, or itself."""
        return self._names.get(value) or as_text(value)  # type: ignore[arg-type]

    @property
    def lines(self) -> list[str]:
        """The lines that define the names."""
        given = ",".join(f"{name}={as_text(value)}" for value, name in self._names.items())
        return [f"const {given};"] if given else []


_SHORT = 5
"""Characters up to which a number is written where it is needed."""


def as_text(value: float | str) -> str:
    """A number as JavaScript reads it back to the last bit; a name as it is."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return {"inf": "Infinity", "-inf": "(-Infinity)", "nan": "NaN"}[repr(value)]
    text = shortest(value)
    return f"({text})" if value < 0 else text


def shortest(value: float) -> str:
    """The fewest characters that are read back as the same number."""
    text = repr(value).removesuffix(".0")
    if "e" in text:
        digits, _, exponent = text.partition("e")
        text = f"{digits}e{int(exponent)}"
    elif abs(value) >= 1e4 and value.is_integer():
        plain = text.rstrip("0")
        text = f"{plain}e{len(text) - len(plain)}" if len(text) - len(plain) > 2 else text
    elif 0.0 < abs(value) < 1.0:
        sign, digits = ("-", text[1:]) if value < 0 else ("", text)
        text = sign + digits.removeprefix("0")
    return text
