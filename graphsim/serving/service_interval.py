"""How far a run's figures may be off, since its steps are: the run repeated with longer and shorter steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.errors import ConfigError, choices_text
from graphsim.units import short

if TYPE_CHECKING:
    from graphsim.serving.served_run import ServedRun


def interval(service: ServedRun, name: str, coverage: float) -> tuple[float, float]:
    """The low and the high end. Raises ConfigError as `Service.interval` does."""
    known = [key for key, value in service.summary().items() if isinstance(value, int | float)]
    if name not in known:
        raise ConfigError(f"interval of {short(name)} is not known; {choices_text(str(name), known)}")
    if service.again is None or service.step_factors is None:
        raise ConfigError(f"interval of {name}: no residuals are recorded for the steps of this run")
    ends = [float(service.again(factor).summary()[name]) for factor in service.step_factors(coverage)]
    return min(ends), max(ends)
