"""Engines that tests run over: a few in a plain run, all of them in CI."""

from __future__ import annotations

from typing import Any

import pytest

import graphsim as gs

QUICK = ("reference", "peft", "vllm", "sglang")
"""One of each way to run adapters; the others are variations of these."""


def each_engine() -> list[Any]:
    """Every engine for `parametrize`; those that are not QUICK are marked slow."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in gs.list_engines()]
