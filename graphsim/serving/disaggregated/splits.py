"""Whether to disaggregate: the same workers all aggregated, and in every split into prefill and decode workers.

Aggregated workers share the requests evenly: one of them is simulated under its share. Poisson arrivals stay Poisson
when they are distributed by chance, and a closed loop's clients are divided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError, InfeasibleError
from graphsim.serving.disaggregated.asked import apart_from
from graphsim.serving.goodput import has_limits
from graphsim.serving.scenario import Serving
from graphsim.serving.service import Service
from graphsim.units import checked_number

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, str], None]


def compare_splits(
    serving: Serving, workers: int, limits: dict[str, float] | None = None, *, transfer: Any = None,
    router: str = "least-loaded", progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """One row per way to use this number of identical workers under one traffic.

    limits: ttft_s, tpot_s, e2e_s in seconds, of which `attainment` is the share of requests that keep them all
    transfer, router: as in `gs.serve`
    Columns: prefill and decode workers (0 and all of them where aggregated), request_throughput, output_throughput,
        mean_ttft_s, p99_ttft_s, mean_tpot_s, p99_tpot_s, mean_e2e_s, and attainment where there are limits. What cannot
        be run has no numbers but a reason.
    Raises ConfigError for fewer than 2 workers, and as `serve` does.
    """
    import pandas as pd

    count = checked_number("workers", workers, 2, one=True)
    if len(serving.table) < count:
        raise ConfigError(f"workers = {count} is more than the {len(serving.table)} requests of the traffic")
    rows = []
    for number, (name, prefill, asked) in enumerate(_ways(serving, count, transfer, router)):
        if progress is not None:
            progress(number, name)
        row: dict[str, Any] = {"workers": name, "prefill": prefill, "decode": count - prefill}
        try:
            service = asked.checked().run()
            row |= _figures(service, limits or {}, 1 if prefill else count) | {"reason": ""}
        except InfeasibleError as error:
            row["reason"] = str(error)
        rows.append(row)
    return pd.DataFrame(rows).set_index("workers")


def _ways(serving: Serving, workers: int, transfer: Any, router: str) -> Iterator[tuple[str, int, Serving]]:
    share = serving.faster(1.0 / workers).first(len(serving.table) // workers)
    yield f"{workers} aggregated", 0, share
    for prefill in range(1, workers):
        apart = apart_from(
            serving, None, prefill, workers - prefill, prefill_limits=None, router=router, transfer=transfer
        )
        yield f"{prefill} prefill + {workers - prefill} decode", prefill, apart


def _figures(service: Service, limits: dict[str, float], alike: int) -> dict[str, Any]:
    """The columns of one run, of which `alike` identical ones run in parallel."""
    found = service.summary()
    row = {name: alike * found[name] for name in ("request_throughput", "output_throughput")}
    for name in ("mean_ttft", "p99_ttft", "mean_tpot", "p99_tpot"):
        row[f"{name}_s"] = found[f"{name}_ms"] / 1e3
    row["mean_e2e_s"] = found["mean_e2el_ms"] / 1e3
    if limits or has_limits(service.classes):
        row["attainment"] = service.goodput(**limits).share
    return row
