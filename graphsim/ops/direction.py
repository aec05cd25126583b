"""The part of a training step in which an operation runs."""

from __future__ import annotations

from enum import Enum


class Direction(Enum):
    """FORWARD also of every inference step; RECOMPUTE of a forward that runs again before its backward.

    UPDATE is once for each optimizer step, however many micro-batches it has.
    """

    FORWARD = "forward"
    RECOMPUTE = "recompute"
    BACKWARD = "backward"
    UPDATE = "update"
