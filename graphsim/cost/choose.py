"""The choice of a device's cost model, by name or by default."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from graphsim.cost.base import CostModel, Trusted
from graphsim.cost.calibrated import calibrated
from graphsim.cost.parameters.engines import BASE, KernelTable
from graphsim.cost.parameters.store import beside
from graphsim.cost.roofline import roofline
from graphsim.cost.users import UsersCost
from graphsim.errors import ConfigError, as_allowed, choices_text
from graphsim.hardware import Hardware
from graphsim.symbolic.memo import Memo

COSTS = ("calibrated", "roofline")
"""Names of cost models."""

_calibrated: Memo[tuple[CostModel, str]] = Memo(most=32)


def choose_cost(cost: str | CostModel | None, hardware: Hardware, table: KernelTable = BASE) -> tuple[CostModel, str]:
    """The cost model, and the name that an estimate states for it; the results of a user's function are checked.

    table: the engine's measured kernels. Raises ConfigError for an unknown name.
    """
    if callable(cost):
        if cost is roofline or isinstance(cost, Trusted):
            return cost, getattr(cost, "__name__", "custom")
        users = UsersCost(cost)
        return users, users.name
    cost = as_allowed(cost, COSTS)
    if cost in (None, "calibrated"):
        key = hardware, _one_of_its_kind(table), _written_ns(hardware, table.engine)
        return _calibrated.get(key, lambda: calibrated(hardware, table))
    if cost == "roofline":
        return roofline, "roofline"
    raise ConfigError(f"cost = {cost!r} is not known; {choices_text(cost, COSTS)}")


def caution(cost: str | CostModel | None, hardware: Hardware, table: KernelTable = BASE) -> str:
    """Caveats on times from `choose_cost`, in one sentence; "" for a measured device or a custom function."""
    name, by_default = hardware.name, as_allowed(cost, COSTS) in (None, "calibrated")
    model, origin = choose_cost(cost, hardware, table)
    if model is roofline:
        told = f"{name} was not measured: its times are" if by_default else f"times of {name} are"
        return f"{told} the datasheet's roofline, and real kernels take longer"
    if not by_default or origin == "calibrated":
        return ""
    sibling = origin.endswith(f"({hardware.architecture})") and "," not in origin
    return f"{name} was not measured: its times are {origin} and may be {'off' if sibling else 'far off'}"


@lru_cache(maxsize=256)
def _one_of_its_kind(table: KernelTable) -> KernelTable:
    """The same object for equal tables: a Memo compares its parts by identity."""
    return table


def _written_ns(hardware: Hardware, engine: str) -> tuple[int, ...]:
    """When the calibrations next to the device's own file were written: later changes take effect at once."""
    if hardware.path is None:
        return ()
    return tuple(_changed_ns(_beside(hardware.path, name)) for name in dict.fromkeys(("", engine)))


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


_beside = lru_cache(maxsize=1024)(beside)
