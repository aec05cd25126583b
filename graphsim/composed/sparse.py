"""Whole sparse attention blocks: DeepSeek-V3.2 and GLM-5 (`dsa_*`), DeepSeek-V4 (`dsv4_*`), MiniMax-M3 (`msa_*`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.composed.sparse_blocks import block_graph, block_work, device_s, host_s, method_of, phase_of
from graphsim.composed.sparse_fit import fit
from graphsim.cost.base import annotate
from graphsim.cost.calibrated import Prices
from graphsim.cost.families.blend import entry_of, mean_constants
from graphsim.cost.families.formats import dtype_of
from graphsim.cost.families.overlap import overlapped
from graphsim.cost.families.sparse import BLOCK, LIKE
from graphsim.cost.surfaces.tables import Array
from graphsim.hardware import Hardware

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["block_s", "fit"]


def block_s(rows: pd.DataFrame, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]]) -> Array:
    """Seconds of each row's block: its graph on the device, or the host that starts the kernels, if that takes longer.

    Raises ConfigError for a model that is not known, or without such attention.
    """
    graph = annotate(block_graph(rows), hardware, Prices(hardware, parameters))
    rest_s, sparse_s = np.zeros(len(rows)), np.zeros(len(rows))
    for _, node in graph.nodes(data=True):
        if node["op"].family == "sparse":
            sparse_s = sparse_s + node["latency_s"]
        else:
            rest_s = rest_s + node["latency_s"]
    c = _block_constants(rows, parameters.get("sparse", {}))
    if not c:
        return np.asarray(rest_s + sparse_s)
    work = block_work(rows)
    return np.asarray(overlapped(device_s(c, work, rest_s, sparse_s), host_s(c, work)))


def _block_constants(rows: pd.DataFrame, fitted: Mapping[str, Any]) -> Mapping[str, float]:
    op, kernel = str(rows["op"].iloc[0]), str(rows["kernel"].iloc[0]) if "kernel" in rows.columns else ""
    key = method_of(op, kernel), phase_of(op), dtype_of("attention", str(rows["kv_dtype"].iloc[0]))
    entry = entry_of(fitted, key, lambda one: _block_of(one, *key))
    return mean_constants(entry["each"]) if "each" in entry else dict(entry["constants"])


def _block_of(fitted: Mapping[str, Any], method: str, phase: str, kv_dtype: str) -> Mapping[str, Any]:
    for name in (method, *LIKE.get(method, ())):
        known = fitted.get(name, {}).get(phase, {})
        if known:
            block: Mapping[str, Any] = (known.get(kv_dtype) or next(iter(known.values())))[BLOCK]
            return block
    return {"constants": {}}
