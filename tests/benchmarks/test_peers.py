"""Beside its peers, measured in the same run; ratios only. Peers that are not installed are skipped.

GRAPHSIM_PEERS names a Python that has them (see table.py).
"""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks import measure

SMALLER = measure.GRID | {"batch": list(range(1, 65)), "rank": [8, 16, 64, 128]}


def need(peer: str) -> None:
    found, wanted = measure.version(peer), measure.PEERS[peer][2]
    if found != wanted:
        pytest.skip(f"{peer} {wanted} is not installed where GRAPHSIM_PEERS points" if found is None else f"is {found}")


def test_a_sweep_is_twenty_thousand_times_as_fast_as_genz_llm() -> None:
    need("genz-llm")
    assert measure.rows_per_s("roofline", grid=SMALLER) >= 20_000 * measure.peer_rows_per_s("genz-llm", 8)


def test_a_sweep_is_a_hundred_times_as_fast_as_the_closed_forms_of_llm_analysis() -> None:
    """Both with rooflines; fitted costs, which llm-analysis does not have, may take a few times as long."""
    need("llm-analysis")
    theirs = measure.peer_rows_per_s("llm-analysis", 2000)
    assert measure.rows_per_s("roofline", grid=SMALLER) >= 100 * theirs
    assert measure.rows_per_s("calibrated", grid=SMALLER) >= 25 * theirs


def test_importing_costs_a_fraction_of_importing_genz_llm() -> None:
    need("genz-llm")
    theirs = measure.import_s("import GenZ", measure.interpreter())
    assert measure.import_s("import graphsim", sys.executable) <= 0.15 * theirs
    assert measure.import_s(measure.GRAPHSIM, sys.executable) <= 0.5 * theirs
