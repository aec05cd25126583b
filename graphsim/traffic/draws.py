"""Random numbers that are the same on every machine: one stream per subject, from uniform random numbers only.

NumPy guarantees the bit stream of PCG64, but not that of its distributions (NEP 19), so these are implemented here:
inverse transform for the exponential, Box-Muller for the normal, Marsaglia and Tsang for the gamma distribution ("A
Simple Method for Generating Gamma Variables", ACM TOMS 26, 2000).
"""

from __future__ import annotations

import numpy as np

from graphsim.traffic.table import Floats, Ints

SUBJECTS = ("arrivals", "inputs", "outputs", "adapters", "drift", "classes", "turns", "think", "prefixes", "ranks")
"""Subjects with separate streams, so that changing one (such as the number of adapters) does not affect the others."""


class Draws:
    """The random numbers of one subject."""

    def __init__(self, seed: int, subject: str) -> None:
        sequence = np.random.SeedSequence(seed, spawn_key=(SUBJECTS.index(subject),))
        self.generator = np.random.Generator(np.random.PCG64(sequence))

    def uniform(self, count: int) -> Floats:
        """Uniform random numbers from 0 (included) to 1 (excluded)."""
        return self.generator.random(count)

    def integers(self, low: int, high: int, count: int) -> Ints:
        """Uniform random integers from low to high, both included."""
        return low + (self.uniform(count) * (high - low + 1)).astype(np.int64)

    def exponential(self, count: int) -> Floats:
        """Exponential random numbers with mean 1."""
        return -np.log1p(-self.uniform(count))

    def normal(self, count: int) -> Floats:
        """Normal random numbers with mean 0 and standard deviation 1."""
        half = (count + 1) // 2
        radius, angle = np.sqrt(2.0 * self.exponential(half)), 2.0 * np.pi * self.uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def gamma(self, shape: float, count: int) -> Floats:
        """Gamma random numbers with mean 1 and variance 1 / shape; constant for an infinite shape."""
        if np.isinf(shape):
            return np.ones(count)
        if shape == 1.0:
            return self.exponential(count)
        if shape < 1.0:  # gamma(shape) = gamma(shape + 1) · uniform^(1 / shape)
            upper = self._gamma_from_1(shape + 1.0, count)
            return np.asarray(upper * np.power(1.0 - self.uniform(count), 1.0 / shape) / shape)
        return self._gamma_from_1(shape, count) / shape

    def choice(self, shares: Floats, count: int) -> Ints:
        """Random indices in `shares` with probabilities in proportion to the shares, which need not sum to 1."""
        return placed(shares, self.uniform(count))

    def _gamma_from_1(self, shape: float, count: int) -> Floats:
        third = shape - 1.0 / 3.0
        found = np.empty(count)
        missing = np.arange(count)
        while missing.size:
            normal = self.normal(missing.size)
            cube = (1.0 + normal / np.sqrt(9.0 * third)) ** 3
            level = -self.exponential(missing.size)  # the logarithm of a uniform number
            with np.errstate(invalid="ignore", divide="ignore"):
                good = (cube > 0) & (level < 0.5 * normal**2 + third * (1.0 - cube + np.log(cube)))
            found[missing[good]] = third * cube[good]
            missing = missing[~good]
        return found


def placed(shares: Floats, at: Floats) -> Ints:
    """Index of the share in which each number from 0 to 1 falls, by the cumulative sum of the shares."""
    edges = np.cumsum(np.asarray(shares, dtype=float))
    last = int(np.flatnonzero(np.asarray(shares))[-1])
    found: Ints = np.minimum(np.searchsorted(edges, at * edges[-1], side="right"), last)
    return found
