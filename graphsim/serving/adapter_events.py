"""The adapter events of a run: loads into slots, and switches of merged weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.serving.run_log import RunLog

Floats = np.ndarray[Any, np.dtype[np.float64]]


def adapter_events(log: RunLog) -> Floats:
    """Rows of start_s, seconds, adapter (BASE where weights became the base model's), in no order.

    A switch to an adapter that has to be loaded first includes the load; both are one row.
    """
    loads = np.asarray(log.loads, dtype=float).reshape(-1, 4)[:, :3]
    switches = np.asarray(log.switches, dtype=float).reshape(-1, 3)
    if len(switches):
        begun = {(start_s, adapter) for start_s, _, adapter in switches.tolist()}
        apart = [(start_s, adapter) not in begun for start_s, _, adapter in loads.tolist()]
        loads = loads[np.array(apart, dtype=bool)]
    return np.concatenate([loads, switches])
