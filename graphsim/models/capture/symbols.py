"""Sizes of a captured step as arithmetic on what a step of graphsim brings: `tokens`, `sequences`, `context_tokens`, …

A prompt is recorded with a symbol for the batch and one for its length; a decode step has the same batch, one new token
and the prompt's length as its past. One formula serves both where it gives what either recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import sympy

NEW, CONTEXT, SEQUENCES, SOURCE = (
    sympy.Symbol(name, positive=True, integer=True)
    for name in ("new_tokens", "context_tokens", "sequences", "source_tokens")
)
ENCODED = sympy.Symbol("encoded_rows", positive=True, integer=True)
"""Rows of an encoder that a step makes: none in a decode step, which finds what came of them in a cache."""

GIVEN = frozenset(("encoded_rows", "logit_rows"))
"""Step names that a size may hold as they are."""

TOKENS, ROWS = (sympy.Symbol(name, positive=True, integer=True) for name in ("tokens", "kv_tokens"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbols:
    """The symbols of a recording.

    source: of an encoder's input, None where there is none
    each: sizes are those of one sequence, as numbers
    """

    batch: sympy.Symbol
    length: sympy.Symbol
    source: sympy.Symbol | None = None
    each: bool = False

    def known(self) -> dict[sympy.Symbol, sympy.Symbol]:
        """What stands for sequences and an encoder's rows."""
        found = {self.batch: SEQUENCES}
        return found if self.source is None else {**found, self.source: SOURCE}


class NoFormulaError(ValueError):
    """A size that depends on data, or that no formula gives in both steps."""


def formula(symbols: Symbols, prompt: Any, decode: Any = None) -> sympy.Expr:
    """A size in step names. prompt, decode: what either step recorded, None where it has no such size.

    Raises NoFormulaError where there is none.
    """
    if prompt is None:
        return _of_decode(symbols, decode)
    if symbols.each:
        return _of_each(prompt)
    for candidate in _candidates(symbols, sympy.sympify(prompt)):
        if decode is None or _as_decode(candidate, symbols) == _normal(sympy.sympify(decode)):
            return candidate
    raise NoFormulaError(f"{prompt} in a prompt and {decode} in a decode step follow no common formula")


def _of_each(size: Any) -> sympy.Expr:
    value = sympy.sympify(size)
    if not value.is_number:
        raise NoFormulaError(f"{size} depends on data")
    return value * SEQUENCES


def _unknown(size: sympy.Expr, symbols: Symbols) -> bool:
    """Whether a size depends on anything but the inputs' sizes."""
    known = {symbols.batch, symbols.length, symbols.source}
    return any(symbol not in known and symbol.name not in GIVEN for symbol in size.free_symbols)


def _normal(expression: sympy.Expr) -> sympy.Expr:
    return sympy.expand(expression)


def _candidates(symbols: Symbols, prompt: sympy.Expr) -> Iterator[sympy.Expr]:
    """The prompt's size with every power of the length read as new tokens or as the context."""
    if _unknown(prompt, symbols):
        raise NoFormulaError(f"{prompt} depends on data")
    known = symbols.known()
    expanded = sympy.expand(prompt)
    if not expanded.is_polynomial(symbols.length):
        for choice in (NEW, CONTEXT):
            yield expanded.subs({**known, symbols.length: choice}, simultaneous=True)
        return
    terms = sympy.Add.make_args(expanded)
    powers = [int(sympy.degree(term, symbols.length)) if term.has(symbols.length) else 0 for term in terms]
    for context in product(*(range(power + 1) for power in powers)):
        parts = [
            (term / symbols.length**power).subs(known) * CONTEXT**c * NEW ** (power - c)
            for term, power, c in zip(terms, powers, context, strict=True)
        ]
        yield sympy.expand(sympy.Add(*parts))


def _as_decode(candidate: sympy.Expr, symbols: Symbols) -> sympy.Expr:
    back = {SEQUENCES: symbols.batch, NEW: 1, CONTEXT: symbols.length + 1}
    if symbols.source is not None:
        back[SOURCE] = symbols.source
    return _normal(candidate.subs(back, simultaneous=True))


def _of_decode(symbols: Symbols, decode: Any) -> sympy.Expr:
    value = sympy.sympify(decode)
    if _unknown(value, symbols):
        raise NoFormulaError(f"{decode} depends on data")
    return sympy.expand(value.subs({**symbols.known(), symbols.length: CONTEXT - 1}, simultaneous=True))


def text(expression: sympy.Expr) -> str | int | float:
    """A formula as arithmetic that model files are written in; a number where it is one."""
    value = sympy.sympify(expression)
    if value.is_number:
        return int(value) if value.is_integer else float(value)
    return _Printer().doprint(_with_products(value))


def _with_products(expression: sympy.Expr) -> sympy.Expr:
    """sequences * new_tokens as tokens, sequences * context_tokens as kv_tokens, one of them in each term."""

    def named(term: sympy.Expr) -> sympy.Expr:
        powers: Mapping[Any, Any] = term.as_powers_dict()
        if powers.get(SEQUENCES, 0) == 1 and powers.get(NEW, 0) >= 1:
            return term / SEQUENCES / NEW * TOKENS
        if powers.get(SEQUENCES, 0) == 1 and powers.get(CONTEXT, 0) >= 1:
            return term / SEQUENCES / CONTEXT * ROWS
        return term

    if not expression.is_polynomial(SEQUENCES, NEW, CONTEXT):
        return expression
    return sympy.Add(*(named(term) for term in sympy.Add.make_args(sympy.expand(expression))))


class _Printer(sympy.printing.str.StrPrinter):
    """sympy to the arithmetic of model files."""

    def _print_floor(self, expression: Any) -> str:
        return f"floor({self._print(expression.args[0])})"

    def _print_ceiling(self, expression: Any) -> str:
        return f"ceil({self._print(expression.args[0])})"

    def _print_Max(self, expression: Any) -> str:
        return f"max({', '.join(map(self._print, expression.args))})"

    def _print_Min(self, expression: Any) -> str:
        return f"min({', '.join(map(self._print, expression.args))})"

    def _print_FloorDiv(self, expression: Any) -> str:
        return f"floor(({self._print(expression.args[0])}) / ({self._print(expression.args[1])}))"

    def _print_CleanDiv(self, expression: Any) -> str:
        return self._print_FloorDiv(expression)

    def _print_Mod(self, expression: Any) -> str:
        return f"(({self._print(expression.args[0])}) % ({self._print(expression.args[1])}))"

    _print_PythonMod = _print_Mod
