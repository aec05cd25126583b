"""A measured device whose calibration holds residuals of a known spread, for tests of intervals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from graphsim.cost.residuals import ALL, RESIDUALS, SCORES
from tests.paths import ROOT


def record(spread: float, bias: float = 0.0, **further: Any) -> dict[str, Any]:
    """Residuals that are normal, of one standard deviation for all kinds."""
    return {"quantiles": {ALL: {ALL: [round(bias + spread * float(score), 6) for score in SCORES]}}, **further}


def device_with(folder: Path, spread: float | dict[str, float], name: str = "h100-sxm", **further: Any) -> Path:
    """A copy of a device whose families have residuals of a spread: of all alike, or by family."""
    path = folder / f"{name}.yaml"
    shutil.copy(ROOT / "hardware" / path.name, path)
    data = json.loads((ROOT / "hardware" / f"{name}.calibration.json").read_text(encoding="utf-8"))
    for family, parameters in data["families"].items():
        parameters.pop(RESIDUALS, None)
        wide = spread.get(family, 0.0) if isinstance(spread, dict) else spread
        if family != "elementwise":
            parameters[RESIDUALS] = record(wide, **further)
    path.with_name(f"{name}.calibration.json").write_text(json.dumps(data), encoding="utf-8")
    return path
