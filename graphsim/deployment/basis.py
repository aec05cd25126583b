"""The basis of printed numbers, and how far to trust them, as the first line of every output with numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.units import Num, amount_text

MEASURED, DATASHEET = "calibrated", "roofline"
_TRUST = {
    MEASURED: "calibrated on {hardware}",
    DATASHEET: "not calibrated: the datasheet's roofline, which real kernels do not reach",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The basis of figures, by name.

    engine: whose kernels run, of training the recipe
    precision: as `Precision.name`
    trust: the cost model, in words: `calibrated on h100-sxm`, `scaled from l40s (ada)`, the datasheet's roofline, …
    interval: of the main figure, the relative range in which a measured one is expected, with its coverage; or ""
    """

    model: str
    hardware: str
    engine: str
    precision: str
    trust: str
    interval: str = ""

    def __str__(self) -> str:
        sure = f", {self.interval}" if self.interval else ""
        return f"{self.model} on {self.hardware}, {self.engine}, {self.precision}; {self.trust}{sure}"

    def to_dict(self) -> dict[str, str]:
        """By name, for JSON."""
        return asdict(self)


def basis_of(deployment: Deployment, recipe: str = "", interval: str = "") -> Basis:
    """The basis of a deployment's figures.

    recipe: of training, whose framework is then named instead of the engine
    """
    name = deployment.device.name
    return Basis(
        model=deployment.model.name,
        hardware=devices_text(deployment),
        engine=f"recipe {recipe}" if recipe else f"engine {deployment.engine_name}",
        precision=deployment.precision.name,
        trust=trust_text(deployment.cost_model, name),
        interval=interval,
    )


def trust_text(cost_model: str, hardware: str) -> str:
    """How far to trust times of a cost model, by the name that an estimate states for it."""
    return _TRUST.get(cost_model, cost_model).format(hardware=hardware)


def devices_text(deployment: Deployment) -> str:
    """`4 x h100-sxm (tp 4)`; the device alone where there is one."""
    degrees = deployment.parallelism
    if np.size(degrees.devices) > 1 or float(degrees.devices) == 1:
        return deployment.device.name
    names = (name for name in ("tp", "pp", "ep", "cp", "dp") if float(getattr(degrees, name)) > 1)
    parts = ", ".join(f"{name} {amount_text(getattr(degrees, name))}" for name in names)
    return f"{amount_text(degrees.devices)} x {deployment.device.name} ({parts})"


def interval_share_text(label: str, value: Num, ends: tuple[Num, Num], coverage: float) -> str:
    """`TPOT -8% to +19% in 80% of cases`; empty for arrays of scenarios."""
    if np.size(value) > 1 or not float(value):
        return ""
    low, high = (float(end) / float(value) - 1.0 for end in ends)
    return f"{label} {low:+.0%} to {high:+.0%} in {coverage:.0%} of cases"


def bases_text(bases: Iterable[Basis]) -> str:
    """The line for figures of several deployments: common parts are stated once."""
    several = list(dict.fromkeys(bases))
    if len(several) == 1:
        return str(several[0])
    model, hardware, engine, precision = (
        ", ".join(dict.fromkeys(getattr(basis, name) for basis in several))
        for name in ("model", "hardware", "engine", "precision")
    )
    by_trust: dict[str, list[str]] = {}
    for basis in several:
        by_trust.setdefault(basis.trust, []).append(basis.hardware)
    trusts = "; ".join(
        text if len(by_trust) == 1 or text.endswith(f"on {names[0]}") else f"{', '.join(dict.fromkeys(names))} {text}"
        for text, names in by_trust.items()
    )
    return f"{model} on {hardware}, {engine}, {precision}; {trusts}"
