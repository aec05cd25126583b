"""What the command line prints of several replicas: a row each, and how even they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphsim.cli.printing import print_line, print_table
from graphsim.units import seconds_text

if TYPE_CHECKING:
    from graphsim.serving.service import Service

MOST_REPLICAS = 16
"""Rows of the table of replicas: the fullest ones."""


def print_replicas(service: Service) -> None:
    """A row a replica, the fullest first where there are many; then the balance of all."""
    from graphsim.serving.fleet.fleet_service import FleetService

    if not isinstance(service, FleetService):
        return
    frame, balance = service.replicas, service.balance
    shown = frame if len(frame) <= MOST_REPLICAS else frame.nlargest(MOST_REPLICAS, "load")
    adapters = bool(service.adapter_names)
    header = ["replica", "requests", "tokens out", "mean TTFT", "p99 TTFT", "TPOT", "load", "KV"]
    header += ["adapters", "loads"] if adapters else []
    print_line()
    print_table(header, [_row(row, adapters) for row in shown.to_dict("records")], right=range(len(header)))
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


def _row(row: Mapping[Any, Any], adapters: bool) -> list[str]:
    times = ["-" if row[name] != row[name] else seconds_text(row[name]) for name in ("mean_ttft_s", "p99_ttft_s")]
    cells = [f"{row['replica']}", f"{row['requests']:,}", f"{row['output_tokens']:,}", *times]
    cells += ["-" if row["mean_tpot_s"] != row["mean_tpot_s"] else seconds_text(row["mean_tpot_s"])]
    cells += [f"{row['load']:.0%}", f"{row['kv']:.0%}"]
    return cells + ([f"{row['adapters']:,}", f"{row['loads']:,}"] if adapters else [])
