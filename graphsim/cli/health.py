"""Installed packages, the purpose of each optional one, and the contents of the catalogs."""

from __future__ import annotations

import platform
import re
import shutil
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from graphsim.cost.parameters.store import calibration_path
from graphsim.errors import DISTRIBUTION
from graphsim.files.catalog import folders
from graphsim.hardware import list_hardware, load_hardware
from graphsim.lora.profile import list_engines
from graphsim.models.loading import list_models

UNLOCKS = {
    "matplotlib": ("plot", "plots: .plot(), plot_latency, --plot"),
    "protobuf": ("chakra", "Chakra traces: to_chakra"),
    "pyarrow": ("parquet", "Parquet files: sweeps to disk, kernel measurements"),
    "shtab": ("completion", "shell completion: graphsim completion"),
    "distributed": ("dask", "sweeps on a Dask cluster"),
    "sphinx": ("docs", "building the handbook"),
    "torch": ("", "measuring kernels on this machine: graphsim measure"),
}
"""Optional packages: the extra that installs each one, and its purpose."""

CORE = ("networkx", "numpy", "pandas", "pyyaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Versions by package (empty if not installed), and the number of entries in each catalog."""

    graphsim: str
    python: str
    core: dict[str, str]
    optional: dict[str, str]
    dot: str
    folders: dict[str, list[str]]
    counts: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def health() -> Health:
    """The state of this installation."""
    devices = list_hardware()
    calibrated = sum(calibration_path(load_hardware(name)) is not None for name in devices)
    return Health(
        graphsim=_version(DISTRIBUTION),
        python=platform.python_version(),
        core={name: _version(name) for name in CORE},
        optional={name: _version(name) for name in UNLOCKS},
        dot=shutil.which("dot") or "",
        folders={kind: [str(path) for path in folders(kind)] for kind in ("models", "hardware")},
        counts={
            "models": len(list_models()), "hardware": len(devices), "calibrations": calibrated,
            "engines": len(list_engines()),
        },
    )  # fmt: skip


def _version(package: str) -> str:
    try:
        return re.sub(r"\+.*", "", metadata.version(package))
    except metadata.PackageNotFoundError:
        return ""
