"""The data of an explanation: parts of a time by kind of operation and by cause, which add up to it exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from graphsim.analysis.changes import changes_text
from graphsim.analysis.switches import Switch
from graphsim.brief import figures_text
from graphsim.compile.causes import CAUSES, split
from graphsim.cost.base import Cost
from graphsim.display.nodes import Entry, number
from graphsim.errors import ConfigError, choices_text
from graphsim.ops.base import HOST
from graphsim.ops.kinds import kind_of
from graphsim.result import plain
from graphsim.units import seconds_text

if TYPE_CHECKING:
    import pandas as pd

AMOUNTS = ("operations", "flops", "moved_bytes", "message_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePart:
    """One kind of operation in one part of the model: its work, and its time by cause; signed in a difference.

    quantity: `ttft_s` or `tpot_s`
    """

    quantity: str
    part: str
    op_type: str
    operations: float = 0.0
    flops: float = 0.0
    moved_bytes: float = 0.0
    message_bytes: float = 0.0
    compute_s: float = 0.0
    memory_s: float = 0.0
    network_s: float = 0.0
    shortfall_s: float = 0.0
    launch_s: float = 0.0
    engine_s: float = 0.0
    other_s: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        """Key for matching parts of two explanations."""
        return self.quantity, self.part, self.op_type

    @property
    def total_s(self) -> float:
        """The sum of all causes."""
        return math.fsum(getattr(self, name) for name in CAUSES)

    def plus(self, other: TimePart, sign: float = 1.0) -> TimePart:
        """The sum of two parts; with `sign` -1 the difference."""
        sums = {name: getattr(self, name) + sign * getattr(other, name) for name in (*AMOUNTS, *CAUSES)}
        return TimePart(quantity=self.quantity, part=self.part, op_type=self.op_type, **sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The parts of an estimate, of a difference or of a measured time; they add up to `totals`.

    title: what is explained
    totals: seconds by quantity
    parts: seconds by part of the model and type of operation
    findings: the most important numbers, as sentences
    notes: the notes of the estimates
    switches: for a single estimate, nodes that would be faster with more work, and the kernel that then runs
    changes: for a difference, the settings that differ, by name, with their old and new values
    """

    title: str
    totals: Mapping[str, float]
    parts: tuple[TimePart, ...]
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    switches: tuple[Switch, ...] = ()
    changes: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        changed = f"where {changes_text(self.changes)}" if self.changes else ""
        return figures_text("Explanation", self.totals, f"{len(self.parts)} parts", changed, of=f"of {self.title}")

    def causes(self, quantity: str = "ttft_s") -> dict[str, float]:
        """Seconds by cause. Raises ConfigError for a quantity that is not explained."""
        if quantity not in self.totals:
            raise ConfigError(f"quantity '{quantity}' is not explained; {choices_text(quantity, self.totals)}")
        chosen = [part for part in self.parts if part.quantity == quantity]
        return {name: math.fsum(getattr(part, name) for part in chosen) for name in CAUSES}

    def to_frame(self) -> pd.DataFrame:
        """One row per quantity, part of the model and type of operation; the causes add up to `total_s`."""
        import pandas as pd

        return pd.DataFrame([_row(part) for part in self.parts])

    def to_dict(self) -> dict[str, Any]:
        """The whole explanation as plain JSON values."""
        values = {
            "title": self.title,
            "totals": dict(self.totals),
            "causes": {quantity: self.causes(quantity) for quantity in self.totals},
            "parts": [_row(part) for part in self.parts],
            "findings": list(self.findings),
            "notes": list(self.notes),
            "switches": [asdict(switch) for switch in self.switches],
            "changes": {name: list(texts) for name, texts in self.changes.items()},
        }
        return plain(values)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        lines = [self.title]
        for quantity, total in self.totals.items():
            causes = {name: value for name, value in self.causes(quantity).items() if value}
            named = ", ".join(f"{name.removesuffix('_s')} {seconds_text(value)}" for name, value in causes.items())
            lines.append(f"{quantity} {seconds_text(total)}: {named}")
        return "\n".join([*lines, *self.findings, *(f"note: {note}" for note in self.notes)])


def _row(part: TimePart) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(TimePart)} | {"total_s": part.total_s}


def part_of(quantity: str, entry: Entry, scenario: int, part: str | None = None, times: float = 1.0) -> TimePart:
    """The part for an operation of a priced graph.

    quantity: quantity that it contributes to
    entry: the operation
    scenario: index of the scenario
    part: name of the part, by default the operation's kind
    times: number of runs of the graph
    """
    work, times, latency_s = entry.op.work(), entry.times * times, number(entry.data["latency_s"], scenario)
    causes = causes_of(entry, latency_s, scenario)
    return TimePart(
        quantity=quantity,
        part=kind_of(entry.op).value if part is None else part,
        op_type=entry.op.op_type.name,
        operations=float(times) if latency_s else 0.0,
        flops=times * number(work.flops + work.vector_flops, scenario),
        moved_bytes=times * number(work.memory_bytes, scenario),
        message_bytes=times * number(work.message_bytes, scenario),
        **{name: times * value for name, value in causes.items()},
    )


def causes_of(entry: Entry, latency_s: float, scenario: int) -> dict[str, float]:
    """Seconds of one run of an operation, by cause.

    entry: the operation
    latency_s: its time
    scenario: index of the scenario
    """
    cost = entry.data.get("cost")
    if cost is None:
        return {"engine_s" if entry.op.stream == HOST else "other_s": latency_s}
    names = ("busy_s", "compute_s", "memory_s", "network_s", "launch_s")
    one = Cost(**{name: number(getattr(cost, name), scenario) for name in names})
    return {name: float(seconds) for name, seconds in split(entry.op, one, latency_s).items()}


def datasheet_s(explanation: Explanation, quantity: str) -> float:
    """Seconds for the work of a quantity at datasheet rates."""
    causes = explanation.causes(quantity)
    return math.fsum(causes[name] for name in ("compute_s", "memory_s", "network_s"))
