"""Power of a device at work, from the activity of its memory and matrix units.

    watts = limit · min(1, idle + memory · (bytes/s / bandwidth) + compute · (flops/s / peak) ^ 1/3)

limit is the device's stated power (`Hardware.power_w`), which its firmware enforces. idle is the share drawn while it
is kept active but waits, as between two steps; memory and compute are the additional shares at full bandwidth and full
peak. The matrix units' share is concave: the first tenth of the peak costs more than the last, where clocks fall to
keep the limit. Constants are shares of the limit and in `hardware/power.json`, one pair for each measured generation;
an unmeasured generation takes their mean.

`graphsim.calibration.power` fits them to the ML.ENERGY leaderboard's rows (Chung et al., "The ML.ENERGY Benchmark",
arXiv 2505.06371).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.catalog import folders
from graphsim.files.reading import Fields, load_mapping
from graphsim.hardware import Hardware
from graphsim.units import Num

FILE = "power.json"
EXPONENT = 1.0 / 3.0
"""Exponent of the matrix units' share of the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of a device's power limit: waiting; memory at its full bandwidth; matrix units at their full peak."""

    idle: float
    memory: float
    compute: float

    def of_limit(self, memory: Num, compute: Num) -> Num:
        """The share of the limit drawn at given shares of the full bandwidth and of the matrix peak."""
        drawn = self.idle + self.memory * memory + self.compute * np.power(np.maximum(compute, 0.0), EXPONENT)
        return np.minimum(drawn, 1.0)[()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The power of one device.

    limit_w: the limit in watts that its file states
    origin: the source of the shares, in a few words
    """

    limit_w: Num
    shares: Shares
    origin: str

    @property
    def idle_w(self) -> Num:
        """Power in watts of a device that waits for work."""
        return self.limit_w * self.shares.idle

    def watts(self, memory: Num, compute: Num) -> Num:
        """Power at shares of the full bandwidth and of the matrix peak; never above the limit."""
        return self.limit_w * self.shares.of_limit(memory, compute)


def power_of(hardware: Hardware) -> Power | None:
    """A device's power model; None where its file states no power.

    Raises ConfigError naming file and field for constants that cannot be read.
    """
    if not np.all(np.greater(hardware.power_w, 0.0)):
        return None
    measured = _measured()
    own = measured.get(hardware.architecture)
    if own is not None:
        return Power(limit_w=hardware.power_w, shares=own, origin=f"constants of {hardware.architecture} devices")
    if not measured:
        return None
    known = f"{hardware.architecture} devices were not measured: mean constants of {' and '.join(measured)}"
    return Power(limit_w=hardware.power_w, shares=_mean(measured), origin=known)


def _mean(measured: Mapping[str, Shares]) -> Shares:
    names = ("idle", "memory", "compute")
    return Shares(**{name: float(np.mean([getattr(shares, name) for shares in measured.values()])) for name in names})


def _measured() -> dict[str, Shares]:
    path = next((folder / FILE for folder in folders("hardware") if (folder / FILE).is_file()), None)
    return {} if path is None else read_shares(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def read_shares(path: Path, _changed_ns: int = 0) -> dict[str, Shares]:
    """The constants of each measured generation in a file. Raises ConfigError naming file, field and value."""
    fields = Fields(load_mapping(path), str(path))
    for name in ("about", "provenance"):
        fields.raw(name)
    idle = fields.number("idle", least=0.0, most=1.0)
    generations = fields.mapping("generations", required=True)
    found = {}
    for name in generations.data:
        own = generations.mapping(name)
        memory, compute = (own.number(part, least=0.0, most=2.0) for part in ("memory", "compute"))
        found[str(name)] = Shares(idle=idle, memory=memory, compute=compute)
    fields.finish()
    if not found:
        raise ConfigError(f"{path}: generations is empty; expected the constants of at least one generation")
    return found
