"""The time of the graph of one block, and the parameters that price it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.cost.base import annotate
from graphsim.cost.calibrated import Prices
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.parameters.basis import basis
from graphsim.cost.parameters.engines import KernelTable, engine_of
from graphsim.cost.surfaces.tables import Array
from graphsim.graph.schedule import makespan_s
from graphsim.hardware import Hardware

if TYPE_CHECKING:
    import pandas as pd


def serving(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Mapping[str, Any]]:
    """The parameters that serve a device, by family, of the engine that the rows name first."""
    table = KernelTable(engine=engine_of(frame["framework"].iloc[0]) if "framework" in frame.columns else "")
    return {name: basis(hardware, name, table).parameters or {} for name in FAMILIES}


def graph_s(graph: nx.DiGraph, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]], rows: int) -> Array:
    """Seconds along the critical path of a graph whose numbers are arrays of `rows`, or hold for all of them.

    parameters: of every cost family; Raises HardwareError or GraphError where an operation cannot be priced.
    """
    total = makespan_s(annotate(graph, hardware, Prices(hardware, parameters)))
    return np.broadcast_to(np.asarray(total, dtype=float), (rows,))
