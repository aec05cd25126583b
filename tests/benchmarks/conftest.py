from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

USERS = gc.get_threshold()


@pytest.fixture(autouse=True)
def garbage_is_collected_as_for_users() -> Iterator[None]:
    """Other tests have it collected more seldom; see tests/conftest.py."""
    others = gc.get_threshold()
    gc.set_threshold(*USERS)
    yield
    gc.set_threshold(*others)
