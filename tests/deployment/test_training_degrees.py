"""Degrees that only training has: what is allowed, how many devices they take, and that inference refuses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphsim as gs

ASKED = (
    {"cp_comm": "a2a"}, {"zero": 3}, {"dp": 4, "shard_group": 2}, {"schedule": "zb-h1"},
    {"pp": 2, "schedule": "interleaved", "virtual_stages": 2},
)  # fmt: skip

VERBS: tuple[Callable[..., Any], ...] = (gs.simulate, gs.build_graph, gs.footprint)


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("verb", VERBS)
def test_inference_refuses_what_is_for_training_alone(verb: Callable[..., Any], asked: dict[str, Any]) -> None:
    device = () if verb is gs.build_graph else ("h100-sxm",)
    with pytest.raises(gs.InfeasibleError, match="it is for training, not for inference"):
        verb("llama-3.2-1b", *device, parallelism=gs.Parallelism(**asked))


def test_a_sweep_gives_the_refusal_as_the_row_s_reason() -> None:
    deployment = gs.Deployment("llama-3.2-1b", "h100-sxm", parallelism=gs.Parallelism(zero=3))
    (reason,) = gs.sweep([deployment])["reason"]
    assert "parallelism.zero = 3 is not allowed" in reason


@pytest.mark.parametrize(("described", "said"), [
    ({"schedule": "1f1"}, "did you mean '1f1b'"),
    ({"zero": 4}, "zero = 4 is not allowed; expected a whole number from 0 to 3"),
    ({"cp": 0}, "cp = 0 is not allowed"),
    ({"dp": 4, "shard_group": 3}, "shard_group = 3 is not allowed with dp = 4"),
    ({"pp": 2, "virtual_stages": 2}, "virtual_stages = 2 is not allowed with schedule = '1f1b'"),
    ({"schedule": "interleaved", "virtual_stages": 2}, "virtual_stages = 2 is not allowed with pp = 1"),
    ({"pp": 3, "schedule": "dualpipe"}, "pp = 3 is not allowed with schedule = 'dualpipe'"),
    ({"virtual_stages": [1, 2]}, "virtual_stages = .* expected a single whole number"),
])  # fmt: skip
def test_degrees_that_make_no_sense_are_refused(described: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        gs.Parallelism(**described)


def test_context_parallel_ranks_are_devices_and_sharing_adds_none() -> None:
    degrees = gs.Parallelism(tp=2, pp=4, dp=8, cp=[1, 2], zero=[1, 3], shard_group=[0, 4])
    assert degrees.devices.tolist() == [64.0, 128.0]
    assert np.array_equal(gs.Parallelism(tp=2, pp=4, dp=8).devices, 64)


def test_what_is_for_training_is_named_only_where_it_differs() -> None:
    assert gs.Parallelism(tp=4, dp=2).training_only == {}
    assert set(gs.Parallelism(cp=2, cp_comm="a2a", zero=1).training_only) == {"cp_comm", "zero"}
