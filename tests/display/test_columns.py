"""A column has one unit and one precision, whatever its figures are."""

from __future__ import annotations

from math import inf, nan

import pytest

from graphsim.display.columns import bytes_column, figures_column, latencies_column, numbers_column, times_column
from graphsim.units import seconds_text


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0.01733, 2.594e-6, 0.0, -1e-19], ["17.330 ms", "0.003 ms", "-", "-"]),
        ([1.5e-3, -2.25e-3], ["1.5000 ms", "-2.2500 ms"]),
        ([999.0, 0.5], ["999.00 s", "0.50 s"]),
        ([4e-10], ["0.4000 ns"]),
        ([nan, inf, 1.0], ["-", "inf s", "1.0000 s"]),
        ([], []),
        ([0.0, nan], ["-", "-"]),
    ],
)
def test_times_are_in_the_unit_of_the_longest(values: list[float], told: list[str]) -> None:
    assert times_column(values, 5) == told


def test_sizes_and_numbers_are_too() -> None:
    assert bytes_column([2.0**33, 2.0**20, 0.0]) == ["8.000 GiB", "0.001 GiB", "-"]
    assert numbers_column([64.0, 1024.0, 0.0]) == ["64", "1,024", "-"]
    assert numbers_column([1.25, 100.0]) == ["1.2", "100.0"]
    assert numbers_column([12345.6, 1.5]) == ["12,346", "2"]


def test_no_time_is_told_in_parts_of_a_nanosecond() -> None:
    assert seconds_text(8.67e-19) == seconds_text(-3e-11) == "<1 ns"
    assert seconds_text(1e-9) == "1 ns" and seconds_text(0.0) == "0 s"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([14.26, 0.0583, 0.0, nan], ["14.2600 s", "0.0583 s", "0.0000 s", "-"]),
        ([0.04135, 0.009], ["41.35 ms", "9.00 ms"]),
        ([4.3, inf], ["4.300 s", "inf s"]),
        ([5000.0, 1e-9], ["5,000.000000 s", "0.000000 s"]),
        ([], []),
        ([0.0, nan], ["0 s", "-"]),
    ],
)
def test_no_latency_is_lost_beside_a_longer_one(values: list[float], told: list[str]) -> None:
    assert latencies_column(values) == told


def test_no_number_is_lost_beside_a_larger_one() -> None:
    assert figures_column([1111.0, 17.01, 156.7]) == ["1,111.0", "17.0", "156.7"]
    assert figures_column([0.4615, 0.0236], 3) == ["0.4615", "0.0236"]
    assert figures_column([64.0, 1024.0, 0.0, nan]) == ["64", "1,024", "0", "-"]
    assert figures_column([]) == []
