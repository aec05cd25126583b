"""Colours shared by all pictures: one hue per kind of operation, one per bound, one for the critical path."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.ops.kinds import Kind


@dataclass(frozen=True, slots=True)
class Tint:
    """A pale fill for nodes and a strong line for borders, bars and points."""

    fill: str
    line: str


TINTS: dict[Kind, Tint] = {
    Kind.ATTENTION: Tint("#dbeafe", "#2563eb"),
    Kind.FEED_FORWARD: Tint("#d1fae5", "#059669"),
    Kind.PROJECTION: Tint("#cffafe", "#0891b2"),
    Kind.ELEMENTWISE: Tint("#f1f5f9", "#94a3b8"),
    Kind.ENDS: Tint("#e7e5e4", "#78716c"),
    Kind.STATE: Tint("#ecfccb", "#65a30d"),
    Kind.LORA: Tint("#fed7aa", "#ea580c"),
    Kind.MERGE: Tint("#fde68a", "#b45309"),
    Kind.COLLECTIVE: Tint("#f3e8ff", "#9333ea"),
    Kind.OPTIMIZER: Tint("#fce7f3", "#be185d"),
    Kind.OTHER: Tint("#ffffff", "#94a3b8"),
}

MEMORY_COLOURS = {
    "weights": TINTS[Kind.ATTENTION].line,
    "kv_cache": TINTS[Kind.FEED_FORWARD].line,
    "activations": TINTS[Kind.ELEMENTWISE].line,
    "adapters": TINTS[Kind.LORA].line,
    "overhead": TINTS[Kind.ENDS].line,
}
"""Colours of the parts of a device's memory; adapters have the colour of their operations."""

BOUND_COLOURS = {
    "compute": "#dc6803",
    "memory": "#2563eb",
    "network": "#9333ea",
    "launch": "#64748b",
    "none": "#cbd5e1",
    "": "#cbd5e1",
}

CRITICAL = "#dc2626"
INK, MUTED, FAINT = "#0f172a", "#475569", "#94a3b8"
