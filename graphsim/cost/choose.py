"""Which cost model prices a device, by name or by default."""

from __future__ import annotations

from functools import lru_cache

from graphsim.cost.base import CostModel, Trusted
from graphsim.cost.calibrated import calibrated
from graphsim.cost.parameters.store import beside
from graphsim.cost.roofline import roofline
from graphsim.cost.users import UsersCost
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.symbolic.memo import Memo

_calibrated: Memo[tuple[CostModel, str]] = Memo(most=32)


def choose_cost(cost: str | CostModel | None, hardware: Hardware) -> tuple[CostModel, str]:
    """The cost model and the name that an estimate states for it; a user's function is checked at each price.

    Raises ConfigError for an unknown name.
    """
    if callable(cost):
        if cost is roofline or isinstance(cost, Trusted):
            return cost, getattr(cost, "__name__", "custom")
        users = UsersCost(cost)
        return users, users.name
    if cost in (None, "calibrated"):
        return _calibrated.get((hardware, _written_ns(hardware)), lambda: calibrated(hardware))
    if cost == "roofline":
        return roofline, "roofline"
    raise ConfigError(f"cost = {cost!r} is not known; {choices_text(cost, ['calibrated', 'roofline'])}")


def caution(cost: str | CostModel | None, hardware: Hardware) -> str:
    """What to beware of in times that `choose_cost` prices so, in one sentence; "" where the device was measured.

    A user's own function answers for itself.
    """
    name, by_default = hardware.name, cost is None or cost == "calibrated"
    model, origin = choose_cost(cost, hardware)
    if model is roofline:
        told = f"{name} was not measured: its times are" if by_default else f"times of {name} are"
        return f"{told} the datasheet's roofline, and real kernels take longer"
    if not by_default or origin == "calibrated":
        return ""
    sibling = origin.endswith(f"({hardware.architecture})") and "," not in origin
    return f"{name} was not measured: its times are {origin} and may be {'off' if sibling else 'far off'}"


def _written_ns(hardware: Hardware) -> int:
    """When the calibration beside the device's own file was written: one that comes or changes later counts at once."""
    if hardware.path is None:
        return 0
    try:
        return _beside(hardware.path).stat().st_mtime_ns
    except OSError:
        return 0


_beside = lru_cache(maxsize=1024)(beside)
