"""Where the files are that tests read: the checkout's own, and reference measurements that lie outside of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""The checkout: README, pyproject, `models/`, `hardware/`."""

DATA = ROOT / "tests" / "data"
GOLDEN = ROOT / "tests" / "golden"

REFERENCE = Path(os.environ.get("GRAPHSIM_REFERENCE", ROOT / ".." / "shared" / "reference"))
"""Measured kernels, serving runs and configs; tests that need them are skipped where the folder is missing."""


def hf_configs() -> dict[str, dict[str, Any]]:
    """A `config.json` of every family that can be read, by name."""
    found: dict[str, dict[str, Any]] = json.loads((DATA / "hf_configs.json").read_text(encoding="utf-8"))
    return found
