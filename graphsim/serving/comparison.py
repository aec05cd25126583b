"""Comparison of ways to serve the same adapters, on the same requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.serving.bottlenecks import Bottlenecks
from graphsim.serving.fleet.fleet_service import FleetService
from graphsim.serving.goodput import has_limits
from graphsim.serving.scenario import Serving
from graphsim.serving.serve import serving_of
from graphsim.serving.service import Service
from graphsim.traffic.traffic import Traffic
from graphsim.units import short

if TYPE_CHECKING:
    import pandas as pd

STRATEGIES = ("dynamic", "merged", "mixed", "paged")
Progress = Callable[[int, str], None]


def compare_serving(
    model: ModelRef | Deployment,
    hardware: HardwareRef | Traffic | None = None,
    traffic: Traffic | None = None,
    strategies: Sequence[str] = STRATEGIES,
    *,
    vary: Mapping[str, Sequence[Any]] | None = None,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    e2e_s: float | None = None,
    progress: Progress | None = None,
    **served: Any,
) -> pd.DataFrame:
    """Serve the same requests with several strategies or settings; one row per strategy or setting.

    strategies: `dynamic`, `merged` (one adapter at a time in the weights, with switching; `merged:POLICY` names the
        policy), `mixed` (the most requested adapter merged, the others dynamic), `paged` (adapters in blocks of the KV
        cache)
    vary: in place of strategies, one setting of the engine and its values, such as {"max_loras": [4, 8, 16]}, or one of
        the fleet: {"router": ["least-loaded", "placed"]}, {"replicas": [4, 8]}
    ttft_s, tpot_s, e2e_s: latency limits of a request in seconds; `attainment` is the share of requests that meet them
        all
    served: further arguments of `serve`
    Columns: completed, request_throughput, output_throughput, mean_ttft_s, p99_ttft_s, mean_tpot_s, mean_e2e_s,
    p99_e2e_s, loads, switches, stalled (share of the engine's time spent on loads and switches), preemptions,
    kv_tokens, limit, and attainment where there are limits. A row that cannot be run has a reason in place of numbers.
    `attrs["notes"]` holds caveats for all rows, and for single strategies. For fleets also imbalance (tokens of the
    busiest replica over the mean of all) and reloads (loads of an adapter that the replica had held before).
    Raises ConfigError as `serve` does, except for what only one strategy or value cannot do.
    """
    serving = serving_of(model, hardware, traffic, **served)
    asked = {"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s}
    limits = {name: value for name, value in asked.items() if value is not None}
    return comparison_of(serving, {"strategy": strategies} if vary is None else vary, limits, progress)


def comparison_of(
    serving: Serving, vary: Mapping[str, Sequence[Any]], limits: dict[str, float], progress: Progress | None = None
) -> pd.DataFrame:
    """`compare_serving` for a given server and traffic.

    vary: `strategy`, or a setting, and its values
    """
    import pandas as pd

    if not isinstance(vary, Mapping) or len(vary) != 1:
        raise ConfigError(
            f"vary = {short(vary)} is not allowed; expected one setting and its values, as max_loras: [4, 8]"
        )
    [(name, values)] = vary.items()
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(f"{name} = {short(values)} is not allowed; expected a list of values")
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise ConfigError(f"{name} = {short(twice)} is named twice; expected different values")
    rows: list[dict[str, Any]] = []
    notes = dict[str, list[str]]()
    for number, value in enumerate(values):
        if progress is not None:
            progress(number, f"{name} {value}")
        try:
            changed = serving.varied(name, value)
            service = changed.run()
            row = figures(service, changed.seen(service), limits) | {
                "reason": "interrupted" if service.log.interrupted else ""
            }
        except InfeasibleError as error:
            row = {"reason": str(error)}
        except KeyboardInterrupt:
            row = {"reason": "interrupted"}
        rows.append({name: value} | row)
        if row["reason"] == "interrupted":
            break
        for note in changed.notes if not row["reason"] else ():
            notes.setdefault(note, []).append(str(value))
    simulated = [str(row[name]) for row in rows if not row["reason"]]
    frame = pd.DataFrame(rows).set_index(name)
    frame.attrs["notes"] = [
        note if shown == simulated else f"{', '.join(shown)}: {note}"
        for note, shown in notes.items() if shown == simulated or name == "strategy"
    ]  # fmt: skip
    if name == "strategy" and not serving.adapters:
        frame.attrs["notes"].append("no request of this traffic has an adapter, so that all strategies are the same")
    return frame


def figures(service: Service, seen: Bottlenecks, limits: dict[str, float]) -> dict[str, Any]:
    """The columns of one run."""
    found = service.summary()
    row: dict[str, Any] = {
        "completed": found["completed"], "request_throughput": found["request_throughput"],
        "output_throughput": found["output_throughput"],
    }  # fmt: skip
    for name, key in (("mean_ttft", "mean_ttft"), ("p99_ttft", "p99_ttft"), ("mean_tpot", "mean_tpot")):
        row[f"{name}_s"] = found[f"{key}_ms"] / 1e3
    row |= {"mean_e2e_s": found["mean_e2el_ms"] / 1e3, "p99_e2e_s": found["p99_e2el_ms"] / 1e3}
    if limits or has_limits(service.classes):
        row["attainment"] = service.goodput(**limits).share
    return row | {
        "loads": len(service.log.loads), "switches": len(service.log.switches),
        "stalled": seen.stalled + seen.switching, "preemptions": int(service.log.preemptions.sum()),
        **_spread(service), "kv_tokens": service.rules.kv_blocks * service.rules.block_tokens, "limit": seen.limit,
    }  # fmt: skip


def _spread(service: Service) -> dict[str, Any]:
    """How evenly the replicas of a fleet were used."""
    if not isinstance(service, FleetService):
        return {}
    return {"imbalance": service.balance.tokens, "reloads": service.balance.reloads}
