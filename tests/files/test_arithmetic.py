"""Arithmetic in files: the same value as Python's, on numbers and arrays, and nothing but arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.files.arithmetic import MAX_DEPTH, MAX_LENGTH, parse

VALUES = {"heads": 32.0, "head_dim": 128.0, "tokens": 7.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("heads * head_dim", 4096.0),
        ("2*heads*head_dim + 64", 8256.0),
        ("heads - head_dim - 1", -97.0),
        ("-heads", -32.0),
        ("+heads", 32.0),
        ("(heads + 1) * 2", 66.0),
        ("heads / 5", 6.4),
        ("heads // 5", 6.0),
        ("heads % 5", 2.0),
        ("2 ** 3", 8.0),
        ("-2 ** 2", -4.0),
        ("min(heads, head_dim, 3)", 3.0),
        ("max(heads, head_dim)", 128.0),
        ("ceil(heads / 5)", 7.0),
        ("floor(heads / 5)", 6.0),
        ("ceil(8 * heads / 3 / 256) * 256", 256.0),
        ("1_000 + 1e3", 2000.0),
        (4096, 4096.0),
        (0.5, 0.5),
    ],
)
def test_the_value_is_pythons(text, expected):
    assert parse(text).evaluate(VALUES) == expected


def _expressions() -> st.SearchStrategy[str]:
    leaf = st.sampled_from(["a", "b", "3", "0.5"])

    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        binary = st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        )
        call = st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})")
        return binary | call | inner.map(lambda t: f"ceil({t})") | inner.map(lambda t: f"-{t}")

    return st.recursive(leaf, grown, max_leaves=6).filter(lambda text: len(text) <= MAX_LENGTH)


@settings(max_examples=150, deadline=None)
@given(text=_expressions(), a=st.floats(0.1, 1e3), b=st.floats(0.1, 1e3))
def test_arrays_numbers_bound_names_and_printed_text_agree(text, a, b):
    expression = parse(text)
    alone = expression.evaluate({"a": a, "b": b})
    arrays = expression.evaluate({"a": np.array([a, 1.0]), "b": np.array([b, 2.0])})
    np.testing.assert_allclose(np.broadcast_to(arrays, (2,))[0], alone, rtol=1e-12)
    np.testing.assert_allclose(expression.bind({"a": a}).evaluate({"b": b}), alone, rtol=1e-12)
    assert expression.bind({"a": a, "b": b}).names == frozenset()
    if len(str(expression)) <= MAX_LENGTH:
        np.testing.assert_allclose(parse(str(expression)).evaluate({"a": a, "b": b}), alone, rtol=1e-9)


def test_equal_arithmetic_is_equal_and_hashable():
    assert {parse("a+b"), parse("a  +  b"), parse("b + a")} == {parse("a + b"), parse("b + a")}


def test_division_by_zero_is_not_finite_and_raises_nothing():
    for text in ("1 / x", "1 // x", "1 % x", "x ** -1", "(x - 1) ** 0.5"):
        assert not np.isfinite(parse(text).evaluate({"x": 0.0})), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "characters"),
        ("   ", "characters"),
        ("a" * (MAX_LENGTH + 1), "characters"),
        ("heads *", "not arithmetic"),
        ("heads head_dim", "not arithmetic"),
        ("(" * 100 + "1" + ")" * 99, "not arithmetic"),
        ("a\0", "not arithmetic"),
        ("__import__('os')", "function '__import__' is not known"),
        ("heads.bit_length()", "not allowed"),
        ("heads.real", "not allowed"),
        ("[1][0]", "not allowed"),
        ("lambda: 1", "not allowed"),
        ("1 if heads else 2", "not allowed"),
        ("heads == 3", "not allowed"),
        ("heads and 1", "not allowed"),
        ("~heads", "not allowed"),
        ("heads << 99", "not allowed"),
        ("heads @ heads", "not allowed"),
        ("(x := 3)", "not allowed"),
        ("min(*heads)", "takes 2 to 8|not allowed"),
        ("min(heads, heads, key=1)", "not allowed"),
        ("min(heads)", "takes 2 to 8 arguments, found 1"),
        ("ceil(1, 2)", "takes 1 arguments, found 2"),
        ("sqrt(heads)", "function 'sqrt' is not known"),
        ("'text'", "not a number"),
        ("True + 1", "not a number"),
        ("1j", "not a number"),
        ("9 ** 9 ** 9", "plain exponent"),
        ("2 ** heads", "plain exponent"),
        ("2 ** 1000", "plain exponent"),
        ("1e999", "must lie within"),
        ("9" * 100, "must lie within"),
        ("-" * (MAX_DEPTH + 5) + "1", "nested deeper"),
        ("head * 2", "unknown name 'head'; did you mean 'heads'"),
        (None, "expected a number or arithmetic"),
        (True, "expected a number or arithmetic"),
        ([1], "expected a number or arithmetic"),
        (float("nan"), "must lie within"),
        (float("inf"), "must lie within"),
    ],
)
def test_anything_but_small_arithmetic_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text, VALUES)


@pytest.mark.parametrize(
    "text",
    ["3", "a", "2 * a + b", "a / 4", "a // 64 * 64", "ceil(a / 3)", "a % 16", "a ** 2", "max(a - b, 0)", "min(a, b)",
     "a * max(b - 3, c)", "a ** 0.5"],
)  # fmt: skip
def test_a_form_that_is_always_a_size_is_known_for_one(text):
    expression = parse(text)
    assert expression.is_size
    values = np.array([0.0, 0.3, 1.0, 7.0, 1e6])
    grid = dict(zip("abc", (axis.ravel() for axis in np.meshgrid(values, values, values)), strict=True))
    found = np.asarray(expression.evaluate(grid))
    assert np.all(np.isfinite(found) & (found >= 0))


@pytest.mark.parametrize(
    "text", ["-1", "a - 1", "2 * (a - b)", "1 / a", "a // b", "a % b", "(a - b) ** 0.5", "a ** (-1)", "min(a, b - 1)",
             "max(a - 1, b - 1)", "max(1 / a, 1)", "a % (-2)", "a / 0"],
)  # fmt: skip
def test_a_form_that_may_be_negative_or_without_value_is_not(text):
    assert not parse(text).is_size
