"""The program starts at once: what it takes beside importing the libraries that every estimate needs."""

from __future__ import annotations

import pytest

from tests.benchmarks.measure import start_ratios

pytestmark = pytest.mark.slow


def test_help_and_a_first_estimate_take_little_more_than_the_libraries() -> None:
    """An estimate's aim is 1.6, and 1.7 to 1.9 is what it takes on a busy machine.

    Of what it takes beyond the libraries, a third is the first call and the rest is importing.
    """
    ratios = start_ratios()
    assert ratios["help"] <= 0.3, ratios
    assert ratios["run"] <= 2.3, ratios
