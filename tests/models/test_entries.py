"""Entries of a compressed cache and the pairs that queries form with them, against counting one by one."""

import numpy as np
import pytest

from graphsim.models.phase import Segment, generation_of, prompts_of


@pytest.mark.parametrize("ratio", [1, 4, 7, 128])
@pytest.mark.parametrize("most", [0, 1, 5, 40])
@pytest.mark.parametrize(("past", "new"), [(0, 1), (0, 300), (3, 1), (127, 1), (511, 33), (1000, 260)])
def test_a_query_sees_the_whole_windows_behind_it(ratio: int, most: int, past: int, new: int) -> None:
    segment = Segment(sequences=3.0, new_tokens=float(new), past_tokens=float(past))
    seen = [(t // ratio) for t in range(past + 1, past + new + 1)]
    assert segment.entry_pairs(ratio, most) == 3 * sum(min(n, most) if most else n for n in seen)
    assert segment.entries(ratio) == 3 * ((past + new) // ratio)
    assert segment.entry_pairs(ratio, most, causal=False) == 3 * new * ((past + new) // ratio)


def test_sequences_of_any_length_have_the_mean_of_their_entries() -> None:
    """Generations whose contexts end anywhere in a window: by their sum, within half an entry each."""
    lengths = np.arange(500, 1524)
    one_by_one = sum(length // 128 for length in lengths)
    segment = generation_of(float(len(lengths)), float(lengths.sum())).segments[0]
    assert segment.entries(128) == pytest.approx(one_by_one, rel=1e-12)
    assert segment.entry_pairs(128) == segment.entries(128)
    assert segment.entry_pairs(128, 3) == 3 * len(lengths)


def test_equal_prompts_by_their_sums_have_the_pairs_of_each() -> None:
    alike = Segment(sequences=5.0, new_tokens=300.0, past_tokens=100.0)
    sums = prompts_of(5.0, alike.tokens, alike.pairs(), alike.kv_tokens(), 5.0).segments[0]
    assert sums.entry_pairs(4, 60) == pytest.approx(alike.entry_pairs(4, 60), rel=1e-12)
