"""Sizes of a captured step as formulas of graphsim's step quantities: `tokens`, `sequences`, `context_tokens`, …

A prompt is recorded with symbols for batch and length; a decode step has the same batch, one new token per sequence and
the prompt's length as context. One formula covers both steps if it gives the recorded size in each.
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
"""Encoder rows computed in a step: none in a decode step, which reads their keys and values from a cache."""

GIVEN = frozenset(("encoded_rows", "logit_rows"))
"""Step quantities that a recorded size may contain."""

TOKENS, ROWS = (sympy.Symbol(name, positive=True, integer=True) for name in ("tokens", "kv_tokens"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbols:
    """The symbols of a recording.

    batch: number of sequences
    length: tokens of each sequence
    source: length of an encoder's input; None without an encoder
    each: whether sizes are plain numbers for one sequence
    """

    batch: sympy.Symbol
    length: sympy.Symbol
    source: sympy.Symbol | None = None
    each: bool = False

    def known(self) -> dict[sympy.Symbol, sympy.Symbol]:
        """Step quantities by the symbols that they replace: batch and source."""
        found = {self.batch: SEQUENCES}
        return found if self.source is None else {**found, self.source: SOURCE}


class NoFormulaError(ValueError):
    """A size depends on data, or no formula is valid in both steps."""


def formula(symbols: Symbols, prompt: Any, decode: Any = None) -> sympy.Expr:
    """A size as a formula of step quantities.

    symbols: symbols of the recording
    prompt, decode: the size recorded in each step; None if the step has no such size
    Raises NoFormulaError if there is no formula for both.
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
    """All readings of the prompt's size in which each power of the length stands for new tokens or context tokens."""
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
    """A formula in the arithmetic of model files; a number if it is constant."""
    value = sympy.sympify(expression)
    if value.is_number:
        return int(value) if value.is_integer else float(value)
    return _Printer().doprint(_with_products(value))


def _with_products(expression: sympy.Expr) -> sympy.Expr:
    """Replace sequences * new_tokens by tokens and sequences * context_tokens by kv_tokens, at most one per term."""

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
    """Prints sympy expressions in the arithmetic of model files."""

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
