"""How far a graph has come on its way from a model to what a device runs."""

from __future__ import annotations

from typing import Literal, get_args

Stage = Literal["logical", "sharded", "lowered", "launched"]
"""As the model and its adapter are; one device's share; an engine's kernels; with launches.

Each holds what the stages before it hold, and more.
"""

STAGES: tuple[Stage, ...] = get_args(Stage)
