"""Rows of a log are a list of tuples in all that anybody asks of them, and small."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsim.serving.rows import Rows

tables = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * width), max_size=12))


@given(tables)
def test_rows_are_what_was_appended(table):
    rows = Rows()
    for row in table:
        rows.append(row)
    assert list(rows) == table and len(rows) == len(table)
    assert [rows[i] for i in range(-len(table), len(table))] == table * 2
    if table:
        assert np.array_equal(np.asarray(rows, dtype=float), np.array(table))
    assert list(pickle.loads(pickle.dumps(rows))) == table
    assert np.asarray(Rows()).reshape(-1, 10).shape == (0, 10)


def test_a_table_of_them_does_not_keep_them_from_growing():
    rows = Rows([(1, 2.5)])
    table = np.asarray(rows)
    rows.append((3, 4.5))
    assert table.tolist() == [[1.0, 2.5]] and rows[-1] == (3.0, 4.5)
    with pytest.raises(ValueError, match="a row of 3 numbers among rows of 2"):
        rows.append((1, 2, 3))
    with pytest.raises(IndexError):
        rows[2]


def test_a_number_takes_about_eight_bytes():
    rows = Rows((float(i), 0.5, 3.0) for i in range(5000))
    assert sys.getsizeof(rows._numbers) < 5000 * 3 * 8 * 1.25
