"""The load of a run is its rate over that of the largest batch which fits."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.serving.over_time import columns_of
from graphsim.serving.rules import Rules
from graphsim.serving.saturation import CACHE, SEQUENCES, TOKENS, Saturation, saturation_of

A, B, C = 0.01, 0.0005, 2e-5
PROMPT, OUTPUT = 200, 100


def run(batches: list[int], blocks_each: int = 10) -> Saturation:
    """Steps back to back, of a server on which prompts come as answers end; rules of 100 sequences, 2,000 blocks."""
    rows, at = [], 0.0
    for i, batch in enumerate(batches):
        prompt = PROMPT * 2 * batch // OUTPUT if i % 2 else 0
        seconds = A + B * batch + C * prompt
        rows.append((at, seconds, 1, batch, 1 if prompt else 0, prompt, 0, blocks_each * batch, 0, 0.0))
        at += seconds
    columns = columns_of(rows)
    rules = Rules(kv_blocks=2000, max_num_seqs=100, max_num_batched_tokens=4096)
    return saturation_of(columns, columns["batch"], rules, (0.0, at))


def expected(batches: list[int], most: float) -> float:
    mean = float(np.mean(batches))
    each = PROMPT / OUTPUT
    rate = mean / (A + B * mean + C * each * mean)
    return rate / (most / (A + (B + C * each) * most))


@pytest.mark.parametrize("size", [10, 40, 100])
def test_the_load_is_the_rate_over_that_of_the_largest_batch(size):
    batches = [size // 2, size // 2, size, size] * 30
    found = run(batches)
    assert found.limit == SEQUENCES and found.sequences == 100
    assert found.load == pytest.approx(expected(batches, 100.0), rel=1e-6)


def test_what_is_full_first_is_the_limit():
    assert run([20, 20, 40, 40] * 30, blocks_each=40).limit == CACHE
    assert run([20, 20, 40, 40] * 30, blocks_each=40).sequences == pytest.approx(50.0)
    columns = columns_of([(i * 0.1, 0.1, 1, 10 + i % 5, 1, 390, 0, 10, 0, 0.0) for i in range(50)])
    rules = Rules(kv_blocks=2000, max_num_seqs=100, max_num_batched_tokens=512)
    found = saturation_of(columns, columns["batch"], rules, (0.0, 5.0))
    assert found.limit == TOKENS and found.sequences == pytest.approx(512 / (1 + 390 / 12))


def test_alike_batches_tell_by_their_size_and_nothing_is_no_load():
    columns = columns_of([(i * 0.1, 0.1, 1, 60, 0, 0, 0, 10, 0, 0.0) for i in range(50)])
    rules = Rules(kv_blocks=2000, max_num_seqs=100, max_num_batched_tokens=512)
    assert saturation_of(columns, columns["batch"], rules, (0.0, 5.0)).load == pytest.approx(0.6)
    assert saturation_of(columns_of([]), np.zeros(0), rules, (0.0, 5.0)).load == 0.0
