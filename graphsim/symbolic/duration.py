"""Calls that give times, as a recorded formula knows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Duration:
    """A function that gives a time, and so nothing below zero; its arguments are the values of what it was made on.

    A function may have a method `along`, which gives the times of the steps of one scenario faster.
    together: gives the times of many durations at single values in one go, from pairs of function and values
    """

    def __init__(
        self, function: Callable[..., Any], together: Callable[[list[tuple[Any, Any]]], list[Any]] | None = None
    ) -> None:
        self.function, self.together = function, together
        self.along = getattr(function, "along", function)

    def __call__(self, *values: Any) -> Any:
        """The time, in seconds."""
        return self.function(*values)
