"""Lengths for runs whose data set is named but not available: a similar distribution, scaled to the run's means."""

from __future__ import annotations

from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]

SHARES = (0.0, 0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.975, 0.99, 0.995, 1.0)
PROMPTS = (
    48, 56, 72, 83, 92, 100, 106, 114, 121, 129, 136, 146, 160, 180, 203, 229, 260, 302, 378, 506, 612, 666, 791, 870,
    1005,
)  # fmt: skip
ANSWERS = (
    3, 4, 14, 32, 50, 68, 87, 103, 125, 149, 169, 189, 212, 233, 259, 282, 310, 343, 397, 460, 575, 668, 781, 837, 971,
)  # fmt: skip
"""Quantiles of MLPerf's OpenOrca sample for Llama-2-70B (openshift-psap/performance-dashboard 7100702, 24,576 rows).

Its means, 222 and 219 tokens, are close to those of ShareGPT as vLLM's benchmark filters it (222 and 194 where it was
run, arXiv 2508.08343); the filtered texts themselves are not public as token counts. The correlation of prompt and
answer lengths is unknown: both are drawn independently.
"""


def chat_lengths(count: int, mean_prompt: float, mean_answer: float, draw: np.random.Generator) -> tuple[Ints, Ints]:
    """Prompt and answer lengths of `count` chats in tokens, with approximately the given means."""
    return _scaled(PROMPTS, mean_prompt, count, draw), _scaled(ANSWERS, mean_answer, count, draw)


def _scaled(quantiles: tuple[int, ...], mean: float, count: int, draw: np.random.Generator) -> Ints:
    values = np.asarray(quantiles, dtype=float)
    shares = np.asarray(SHARES)
    own_mean = float((0.5 * (values[1:] + values[:-1]) * np.diff(shares)).sum())
    lengths = np.interp(draw.random(count), shares, values) * (mean / own_mean)
    return np.asarray(np.maximum(np.rint(lengths), 1), dtype=np.int64)
