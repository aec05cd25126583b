"""Sums of a smooth function over whole numbers from a few of its values: Gauss quadrature with the counting measure.

The rule of N whole numbers with n nodes is exact for polynomials up to degree 2 n - 1. Its nodes are the zeros of the
discrete Chebyshev (Gram) polynomial of degree n, p_{k+1}(x) = x p_k(x) - b_k p_{k-1}(x) around the middle, with
b_k = k² (N² - k²) / (4 (4 k² - 1)), and the weights follow from the three-term recurrence (Golub and Welsch,
"Calculation of Gauss quadrature rules", 1969; Gautschi, "Orthogonal Polynomials", 2004, section 1.5.2).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def rules(counts: Array, nodes: int) -> tuple[Array, Array]:
    """Nodes, as distances from the middle, and weights of the rules for this many whole numbers, each more than
    `nodes`.

    Both have an axis of length `nodes` in front of that of the counts.
    """
    if nodes == 1:
        return np.zeros((1, len(counts))), counts[None]
    different, back = np.unique(counts, return_inverse=True)
    places, weights = zip(*[_rule(count, nodes) for count in different.tolist()], strict=True)
    return np.array(places).T[:, back], np.array(weights).T[:, back]


@lru_cache(maxsize=4096)
def rule(count: float, nodes: int) -> list[tuple[float, float]]:
    """Nodes and weights of the rule for this many whole numbers, more than `nodes`, as pairs of plain numbers."""
    if nodes == 1:
        return [(0.0, count)]
    places, weights = _rule(count, nodes)
    return list(zip(places.tolist(), weights.tolist(), strict=True))


@lru_cache(maxsize=65536)
def _rule(count: float, nodes: int) -> tuple[Array, Array]:
    k = np.arange(1.0, nodes)
    beside = np.sqrt(k * k * (count * count - k * k) / (4.0 * (4.0 * k * k - 1.0)))
    places, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    return places, count * vectors[0] ** 2
