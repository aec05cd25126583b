"""Where the files are that tests read: the checkout's own, and reference measurements that lie outside of it."""

from __future__ import annotations

import csv
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
    """A `config.json` of every family that can be read, by name; each folder of tests/data/hf holds those of a kind."""
    files = sorted((DATA / "hf").glob("*/configs.json"))
    return {name: data for file in files for name, data in json.loads(file.read_text(encoding="utf-8")).items()}


def hf_facts() -> list[dict[str, str]]:
    """What is known of these configs: see tests/data/make_hf_structure.py."""
    files = sorted((DATA / "hf").glob("*/facts.csv"))
    return [row for file in files for row in csv.DictReader(file.open(encoding="utf-8"))]
