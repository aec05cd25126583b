"""A sweep's grid: rows in order, blocks that cover it once, choices that go together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphsim as gs
from graphsim.sweeps.axis import Axis
from graphsim.sweeps.grid import Grid, grid_of

AXES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def grid(lengths: list[int]) -> Grid:
    names = ("batch", "input_tokens", "tp", "rank")
    return Grid(tuple(Axis({names[i]: np.arange(1.0, n + 1.0)}) for i, n in enumerate(lengths)))


@given(AXES, st.integers(1, 50))
def test_blocks_cover_the_grid_once_in_the_order_of_rows(lengths: list[int], most: int) -> None:
    whole = grid(lengths)
    numbers = np.arange(whole.rows).reshape(whole.shape)
    seen = [numbers[place].ravel() for place in whole.blocks(most)]
    assert np.array_equal(np.concatenate(seen), np.arange(whole.rows))
    assert all(len(rows) <= max(most, 1) for rows in seen)
    assert [whole.sub(place).rows for place in whole.blocks(most)] == [len(rows) for rows in seen]


def test_zipped_choices_go_side_by_side() -> None:
    frame = gs.sweep(
        "gpt-2", "l4", batch=[1, 2], input_tokens=[16, 64, 256], output_tokens=[4, 8, 16],
        zipped=[("input_tokens", "output_tokens")], engine="reference"
    )  # fmt: skip
    assert frame[["batch", "input_tokens", "output_tokens"]].to_numpy().tolist() == [
        [1, 16, 4], [1, 64, 8], [1, 256, 16], [2, 16, 4], [2, 64, 8], [2, 256, 16],
    ]  # fmt: skip
    one = gs.simulate("gpt-2", "l4", 2, 64, 8, engine="reference")
    assert frame.loc[4, "latency_s"] == pytest.approx(one.latency_s, rel=1e-4)


def test_what_makes_a_graph_may_go_along_with_a_number() -> None:
    frame = gs.sweep(
        ["gpt-2", "llama-3.2-1b"], "l4", batch=[1, 8], cost="roofline", zipped=[("model", "batch")], engine="reference"
    )
    assert list(zip(frame["model"], frame["batch"], strict=True)) == [("gpt-2", 1), ("llama-3.2-1b", 8)]
    assert frame.loc[1, "ttft_s"] == pytest.approx(
        gs.simulate("llama-3.2-1b", "l4", 8, cost="roofline", engine="reference").ttft_s
    )


@pytest.mark.parametrize(
    ("zipped", "said"),
    [
        ([("batch", "input_tokens")], "batch has 2, input_tokens has 3"),
        ([("batch", "inputs")], "'inputs'"),
        ([("batch", "dp"), ("dp", "tp")], "'dp' twice"),
    ],
)
def test_what_cannot_be_zipped_is_one_sentence(zipped: list[tuple[str, ...]], said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        grid_of("gpt-2", "l4", {"batch": [1, 2], "input_tokens": [1, 2, 3], "dp": [1, 2], "tp": [1, 2]}, zipped)
