"""Fitted constants of a host, their meaning, and the remaining error of the simulated runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphsim.serving.adjusted import CONSTANTS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostFit:
    """A fit.

    constants: fitted values, in seconds or as factors
    start: what they began at
    uncertainty: one standard deviation
        each, from the residuals
    table: run (from 1), metric, measured, before, after, error_before, error_after, fitted (whether the fit saw it)
    simulations: total number of simulated runs
    """

    constants: Mapping[str, float]
    start: Mapping[str, float]
    uncertainty: Mapping[str, float]
    table: pd.DataFrame
    simulations: int

    @property
    def error_before(self) -> float:
        """Median of |predicted / measured - 1| at the start, over the figures that were fitted."""
        return self._median("error_before", fitted=True)

    @property
    def error_after(self) -> float:
        """The same with the fitted constants."""
        return self._median("error_after", fitted=True)

    def _median(self, column: str, *, fitted: bool) -> float:
        return float(self.table.loc[self.table["fitted"] == fitted, column].abs().median())

    @property
    def unknown(self) -> tuple[str, ...]:
        """Constants that the runs do not determine: their change is smaller than their uncertainty."""
        return tuple(
            name
            for name, value in self.constants.items()
            if self.uncertainty[name] > max(abs(value - self.start[name]), _little(name))
        )

    def sentences(self) -> list[str]:
        """The fit in words."""
        found = [
            f"{name} = {_value(name, value)} (± {_value(name, self.uncertainty[name])}, before "
            f"{_value(name, self.start[name])}): {CONSTANTS[name].meaning}."
            for name, value in self.constants.items()
        ]
        for fitted, words in ((True, "that were fitted"), (False, "that were not, of the same runs")):
            count = int((self.table["fitted"] == fitted).sum())
            before, after = (self._median(name, fitted=fitted) for name in ("error_before", "error_after"))
            if count:
                found.append(f"Median error of the {count} figures {words}: {before:.1%} before, {after:.1%} after.")
        if self.unknown:
            found.append(
                f"These runs do not tell {', '.join(self.unknown)}: add one with other prompt lengths, or another load."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The fit as plain data."""
        return {
            "constants": dict(self.constants), "start": dict(self.start), "uncertainty": dict(self.uncertainty),
            "error_before": self.error_before, "error_after": self.error_after, "simulations": self.simulations,
            "figures": self.table.to_dict("records"),
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(self.sentences())


def _little(name: str) -> float:
    return CONSTANTS[name].step


def _value(name: str, value: float) -> str:
    if CONSTANTS[name].factor:
        return f"{value:.3f}"
    return f"{value * 1e6:.3g} us" if abs(value) < 1e-4 else f"{value * 1e3:.3g} ms"
