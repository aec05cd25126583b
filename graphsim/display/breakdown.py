"""Data of the charts: a step's time by kind of operation, and each operation's place under the roofline."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from graphsim.cost.roofline import matrix_peak
from graphsim.display.nodes import Entry, bound_of, entries, number
from graphsim.errors import HardwareError
from graphsim.hardware import Hardware
from graphsim.ops.kinds import Kind, kind_of

LEAST_INTENSITY = 1e-2
"""Intensity at which operations without arithmetic are drawn; their distance from the roof is still correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One operation that runs in every step, under the roofline.

    latency_s: duration of one run, in seconds
    times: runs per step
    intensity: flops (matrix and vector) per byte of memory traffic
    flops_per_s: achieved flop/s
    arithmetic: whether it has any flops; if not, its bytes per second determine the height
    """

    entry: Entry
    kind: Kind
    bound: str
    latency_s: float
    times: int
    intensity: float
    flops_per_s: float
    arithmetic: bool


def points_of(graph: nx.DiGraph, scenario: int = 0) -> list[Point]:
    """The operations of an annotated graph that run in every step and take time."""
    points = []
    for entry in entries(graph):
        latency_s = number(entry.data.get("latency_s", 0.0), scenario)
        if entry.op.once or latency_s <= 0:
            continue
        work = entry.op.work()
        flops = number(work.flops + work.vector_flops, scenario)
        moved = number(work.memory_bytes, scenario)
        arithmetic = flops > 0 and moved > 0
        intensity = max(flops / moved, LEAST_INTENSITY) if arithmetic else LEAST_INTENSITY
        moved = moved or number(work.message_bytes, scenario)
        points.append(
            Point(
                entry=entry,
                kind=kind_of(entry.op),
                bound=bound_of(entry.data, scenario),
                latency_s=latency_s,
                times=entry.times,
                intensity=intensity,
                flops_per_s=(flops if arithmetic else LEAST_INTENSITY * moved) / latency_s,
                arithmetic=arithmetic,
            )
        )
    return [point for point in points if point.flops_per_s > 0]


def seconds_by_kind(graph: nx.DiGraph, scenario: int = 0) -> dict[Kind, float]:
    """Busy seconds of a step per kind of operation, in the order of `Kind`; kinds without time are left out."""
    found: dict[Kind, float] = {}
    for entry in entries(graph):
        if not entry.op.once:
            kind = kind_of(entry.op)
            found[kind] = found.get(kind, 0.0) + _total(entry, scenario)
    return {kind: found[kind] for kind in Kind if found.get(kind, 0.0) > 0}


def seconds_by_type(graph: nx.DiGraph, scenario: int = 0) -> dict[str, float]:
    """Busy seconds of a step per operation type, longest first."""
    found: dict[str, float] = {}
    for entry in entries(graph):
        if not entry.op.once:
            name = entry.op.op_type.name
            found[name] = found.get(name, 0.0) + _total(entry, scenario)
    return dict(sorted(((k, v) for k, v in found.items() if v > 0), key=lambda item: -item[1]))


def _total(entry: Entry, scenario: int) -> float:
    return number(entry.data.get("latency_s", 0.0), scenario) * entry.times


def peaks_of(graph: nx.DiGraph, hardware: Hardware, scenario: int = 0) -> dict[str, float]:
    """Peak flop/s of the matrix units (dense) by number format in use, and of the vector units, highest first."""
    found: dict[str, float] = {}
    for entry in entries(graph):
        name = getattr(entry.op, "matrix_format", "")
        if name and name not in found:
            try:
                found[name] = number(matrix_peak(entry.op, hardware), scenario)
            except HardwareError:
                continue
    vector = number(hardware.vector_flops_per_s, scenario)
    return dict(sorted(found.items(), key=lambda item: -item[1])) | {"vector units": vector}


def part_text(name: str) -> str:
    """Display name of a part of a device's memory: `KV cache` for `kv_cache`."""
    return name.replace("_", " ").replace("kv", "KV")
