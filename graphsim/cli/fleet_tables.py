"""Tables of several replicas: one row per replica, and how evenly they are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphsim.cli.printing import print_line, print_table
from graphsim.display.columns import latencies_column

if TYPE_CHECKING:
    import pandas as pd

    from graphsim.serving.service import Service

MOST_REPLICAS = 16
"""Maximum rows in the table of replicas: the fullest ones."""


def print_replicas(service: Service) -> None:
    """Print one row per replica, the fullest first if there are many, and the balance of all."""
    from graphsim.serving.fleet.fleet_service import FleetService

    if not isinstance(service, FleetService):
        return
    frame, balance = service.replicas, service.balance
    shown = frame if len(frame) <= MOST_REPLICAS else frame.nlargest(MOST_REPLICAS, "load")
    adapters = bool(service.adapter_names)
    header = ["replica", "requests", "tokens out", "mean TTFT", "p99 TTFT", "TPOT", "load", "KV"]
    header += ["adapters", "loads"] if adapters else []
    print_line()
    rows = zip(*(_column(name, shown[name]) for name in (*_SHOWN, *(_ADAPTERS if adapters else ()))), strict=True)
    print_table(header, [list(row) for row in rows], right=range(len(header)))
    if len(frame) > len(shown):
        print_line(f"… and {len(frame) - len(shown)} more replicas")
    text = f"router {service.router}: the fullest replica has {balance.tokens:.2f} times the mean in tokens"
    if adapters:
        text += f"; {balance.reloads:,} of {balance.loads:,} loads bring back an adapter"
        text += f", {balance.copies:.1f} copies of each"
    print_line(text)
    if service.history:
        most = max(count for _, count in service.history)
        text = f"scaled {len(service.history) - 1} times, to {most} replicas at most"
        print_line(f"{text}; {service.replica_s:,.0f} replica-seconds")


_SHOWN = ("replica", "requests", "output_tokens", "mean_ttft_s", "p99_ttft_s", "mean_tpot_s", "load", "kv")
_ADAPTERS = ("adapters", "loads")


def _column(name: str, values: pd.Series[Any]) -> list[str]:
    if name.endswith("_s"):
        return latencies_column(values.tolist())
    form = {"replica": "", "load": ".0%", "kv": ".0%"}.get(name, ",")
    return [format(value, form) for value in values]
