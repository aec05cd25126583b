"""Numbers in messages: every bound is printed by `units.amount_text` or `units.bounds_text`, in one way."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.files.reading import Fields
from graphsim.units import UNITS, amount_text, bounds_text, parse_quantity

SOURCES = Path(inspect.getfile(gs)).parent
BOUND = re.compile(r"_?(MOST|MAX|LEAST|LARGEST|LONGEST|DEEPEST)(_\w+)?|least|most")
"""Names of bounds in the sources."""
SMALL = {"DEEPEST", "LEAST_DIGITS", "MAX_DEPTH", "MAX_EXPONENT", "MAX_LENGTH"}
"""Bounds that need no separator."""


def formatted() -> Iterator[tuple[str, ast.FormattedValue, bool]]:
    """Every value in an f-string of the sources with its place, and whether it is in the message of an error."""
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told = {id(node) for cause in ast.walk(tree) if _tells(cause) for node in ast.walk(cause)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FormattedValue):
                yield f"{path.relative_to(SOURCES)}:{node.lineno}", node, id(node) in told


def _tells(node: ast.AST) -> bool:
    """Whether an error's message is in a piece of source."""
    called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
    return isinstance(node, ast.Raise) or called in ("problem", "_checked", "_refuse", "wrong")


def test_no_number_is_cut_to_six_digits_or_shown_in_a_programmers_notation() -> None:
    """`:g` prints 1048576 as 1.04858e+06; `amount_text` and columns of figures do not."""
    cut = [place for place, value, _ in formatted() if _spec(value) == "g"]
    assert {place.partition(":")[0] for place in cut} == {"symbolic/guard.py", "units.py"}, cut


def test_every_bound_in_a_message_goes_through_one_function() -> None:
    bare = []
    for place, value, told in formatted():
        name = getattr(value.value, "id", getattr(value.value, "attr", ""))
        if told and BOUND.fullmatch(name) and name not in SMALL:
            bare.append(f"{place} {name}")
    assert not bare


def _spec(value: ast.FormattedValue) -> str:
    parts = value.format_spec.values if isinstance(value.format_spec, ast.JoinedStr) else []
    return "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (10**7, "10,000,000"), (1_048_576.0, "1,048,576"), (0.001, "0.001"), (1e15, "1e15"), (1e30, "1e30"),
     (1e-9, "1e-9"), (2.5, "2.5"), (1 / 3, "0.333333"), (1_234_567.8, "1,234,568"), (-3.0, "-3"), (inf, "inf"),
     (10**400, "inf")],
)  # fmt: skip
def test_an_amount_is_whole_where_it_can_be(value: float, text: str) -> None:
    assert amount_text(value) == text


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [(1e6, "bytes/s", "1 MB/s"), (8 * 2**20, "bytes", "8 MiB"), (3.35e12, "bytes/s", "3,350 GB/s"),
     (0.5, "s", "500 ms"),
     (1e15, "flop/s", "1 PFLOP/s"),
     (0.99, "share", "99%"), (2.0, "1/s", "2/s"), (0.0, "W", "0"), (8, "count", "8")],
)  # fmt: skip
def test_a_bound_with_a_unit_keeps_one_that_can_be_typed(value: float, kind: str, text: str) -> None:
    assert amount_text(value, kind) == text
    assert parse_quantity(text.replace(",", ""), kind) == pytest.approx(value)


@pytest.mark.parametrize("kind", UNITS)
def test_a_unit_without_a_base_of_one_is_still_printed(kind: str) -> None:
    assert parse_quantity(amount_text(7, kind).replace(",", ""), kind) == pytest.approx(7)


def test_two_bounds_read_as_a_range() -> None:
    assert bounds_text(1, 10**7) == "from 1 to 10,000,000"
    assert bounds_text(0.5) == "from 0.5"
    assert bounds_text(-inf, 1e30) == "up to 1e30"


def _field(**allowed: float) -> None:
    fields = Fields({"rate": -1}, "device.yaml")
    fields.number("rate", kind="bytes/s", **allowed)
    raise ConfigError("; ".join(fields.problems))


@pytest.mark.parametrize(
    ("call", "allowed"),
    [(lambda: gs.simulate("llama-3.1-8b", "l4", batch=10**12), "from 1 to 1,000,000,000"),
     (lambda: gs.simulate("llama-3.1-8b", "l4", input_tokens=-1), "from 1 to 1,000,000,000"),
     (lambda: gs.LoraConfig(rank=10**9), "65,536"),
     (lambda: gs.Media(audio_s=1e9), "to 1,000,000"),
     (lambda: _field(least=1e6), "from 1 MB/s"),
     (lambda: _field(least=1.0, most=1e15), "from 1 B/s to 1 PB/s")],
)  # fmt: skip
def test_messages_print_their_bounds_alike(call: Callable[[], object], allowed: str) -> None:
    with pytest.raises(ConfigError) as error:
        call()
    assert allowed in str(error.value)
    assert not re.search(r"e\+\d|\d{5,}", str(error.value).replace(str(10**12), "").replace("1000000000", "")), error


def test_a_rate_has_one_unit_everywhere() -> None:
    """Tokens per second are `tokens/s` and requests per second `requests/s`, in sources, pages and the handbook."""
    other = re.compile(r"\b[kM]?toks?/s(ec)?\b(?!/)|\btokens?/sec\b(?!/)|\breqs?/s(ec)?\b")
    found = [
        f"{path.relative_to(SOURCES)}:{number}"
        for path in sorted(SOURCES.rglob("*"))
        if path.suffix in (".py", ".js", ".md") and "validation" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if other.search(line)
    ]
    assert not found
