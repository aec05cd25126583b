"""Several numbers in one text: which numbers they are, what is refused, and that nothing makes a list without end."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.ranges import MOST, values_of
from graphsim.units import parse_quantity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", [8]),
        ("1,2,4", [1, 2, 4]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("7-7", [7]),
        ("1:17:8", [1, 9, 17]),
        ("1:16:8", [1, 9]),
        ("8..64*2", [8, 16, 32, 64]),
        ("8..63*2", [8, 16, 32]),
        ("1..1000*10", [1, 10, 100, 1000]),
        ("1,2,4..16*2,100-102", [1, 2, 4, 8, 16, 100, 101, 102]),
        ("4,1-5", [4, 1, 2, 3, 5]),
        (" 1 - 3 , 8k ", [1, 2, 3, 8000]),
        ("1Ki..4Ki*2", [1024, 2048, 4096]),
        ("1e3", [1000]),
        ("-3", None),
    ],
)
def test_a_text_is_these_numbers(text: str, expected: list[int] | None) -> None:
    if expected is None:
        assert values_of(text) == [int(text)]
        return
    found = values_of(text)
    assert found == expected and all(isinstance(value, int) for value in found)


def test_steps_of_fractions_are_the_numbers_that_are_written() -> None:
    assert values_of("0:1:0.1", whole=False) == [round(i / 10, 1) for i in range(11)]
    assert values_of("0.5..4*2", whole=False) == [0.5, 1, 2, 4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not a whole number or a range"),
        ("many", "'many' is not a whole number or a range; write 8, 1,2,4, 1-64"),
        ("1,,2", "'' is not a whole number"),
        ("5-1", "'5-1' runs from 5 down to 1; put the smaller number first"),
        ("1:9:0", "'1:9:0' has the step 0; expected one above 0"),
        ("1:9", "'1:9' is not a whole number or a range"),
        ("8..64", "'8..64' is not a whole number or a range"),
        ("8..64*1", "'8..64*1' never ends"),
        ("0..64*2", "'0..64*2' never ends"),
        ("1:2:0.5", "'1:2:0.5' holds 1.5, which is not a whole number"),
        ("1.5", "'1.5' holds 1.5, which is not a whole number"),
        ("nan", "'nan' is not a whole number"),
        ("inf", "'inf' is not a whole number"),
        ("1-1e300", "more than 1,000,000 values"),
        ("1..1e300*1.0000001", "more than 1,000,000 values"),
        ("1-999999,2000000-2999999", "more than 1,000,000 values"),
    ],
)
def test_what_is_no_range_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as failed:
        values_of(text)
    assert said in str(failed.value) and "\n" not in str(failed.value)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(alphabet="0123456789.,:-*ekKi ", max_size=14))
def test_any_text_is_numbers_or_a_sentence(text: str) -> None:
    try:
        found = values_of(text, whole=False)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert 1 <= len(found) <= MOST and len(set(found)) == len(found) and all(map(math.isfinite, found))


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("30ms", "s", 0.03), ("0.5s", "s", 0.5), ("500us", "s", 5e-4), ("500 µs", "s", 5e-4), ("2min", "s", 120.0),
        ("1h", "s", 3600.0), ("30MS", "s", 0.03), ("40GiB", "bytes", 40 * 2**30), ("80GB", "bytes", 80e9),
        ("80gb", "bytes", 80e9), ("3.35TB/s", "bytes/s", 3.35e12), ("8k", "count", 8e3), ("8K", "count", 8e3),
        ("8Ki", "count", 8192.0), ("1.5B", "count", 1.5e9), ("120/min", "1/s", 2.0), ("2d", "h", 48.0),
        ("90min", "h", 1.5), ("99%", "share", 0.99),
    ],
)  # fmt: skip
def test_units_are_read(text: str, kind: str, expected: float) -> None:
    assert parse_quantity(text, kind) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("text", "kind"), [("25 Gb/s", "bytes/s"), ("80Gb", "bytes"), ("8 Mb", "bytes")])
def test_bits_are_never_taken_for_bytes(text: str, kind: str) -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        parse_quantity(text, kind)


@pytest.mark.slow
def test_sweeps_take_the_same_texts() -> None:
    texts = gs.sweep("gpt-2", "l4", batch="1-3,8..16*2", rank="8:24:8", tp="1,2")
    lists = gs.sweep("gpt-2", "l4", batch=[1, 2, 3, 8, 16], rank=[8, 16, 24], tp=[1, 2])
    pd.testing.assert_frame_equal(pd.DataFrame(texts), pd.DataFrame(lists))
    with pytest.raises(ConfigError, match="sweep: batch: 'two' is not a whole number or a range"):
        gs.sweep("gpt-2", "l4", batch="two")
    ways = gs.sweep_training("gpt-2", "l4", batch="1..4*2", seq_len="512,1Ki")
    assert list(zip(ways["batch"], ways["seq_len"], strict=True)) == [(b, s) for b in (1, 2, 4) for s in (512, 1024)]
