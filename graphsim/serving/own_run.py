"""A simulated server compared with a run that its user measured: figures, differences, and the host's constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphsim.result import plain
from graphsim.serving.fit_host import fit_host
from graphsim.serving.fit_report import HostFit
from graphsim.serving.measured import Measured, bench_of, compare_measured, where_they_part
from graphsim.serving.scenario import Serving
from graphsim.serving.service import Service

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRun:
    """Comparison of a simulated run with a measured one.

    table: metric, measured, predicted, error
    parting: sentences on their differences
    fit: of the host's constants
    """

    table: pd.DataFrame
    parting: tuple[str, ...]
    fit: HostFit

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        rows = plain(self.table.to_dict("records"))
        return {"figures": rows, "parting": list(self.parting), "fit": plain(self.fit.to_dict())}


def own_run(serving: Serving, service: Service, measured: Measured, progress: Progress | None = None) -> OwnRun:
    """Compare a run of a server with the result file of a benchmark client, and fit the host's constants to it.

    Raises ConfigError if the file cannot be read or has no figure in common with the run.
    """
    bench, front, done = bench_of(measured), serving.front, 0

    def simulated(constants: Mapping[str, float]) -> Mapping[str, Any]:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, "fitting the host's constants")
        again = serving.with_host(**constants).run()
        if again.log.interrupted:
            raise KeyboardInterrupt
        return again.summary()

    start = {"request_s": front.request_s, "step_factor": serving.host.get("step_factor", 1.0)}
    return OwnRun(
        table=compare_measured(service, bench), parting=where_they_part(service, bench),
        fit=fit_host([(bench, simulated)], start=start),
    )  # fmt: skip
