"""The stages of a graph, from the model to the kernels of a device."""

from __future__ import annotations

from typing import Literal, get_args

Stage = Literal["logical", "sharded", "lowered", "launched"]
"""The operations of the model and its adapter; one device's share of them; the kernels of an engine; with launches.

The passes of each stage have run on the graphs of the later ones, too.
"""

STAGES: tuple[Stage, ...] = get_args(Stage)
