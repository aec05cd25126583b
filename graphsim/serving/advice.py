"""What limits a server, and how much each change helps, simulated on the same requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphsim.errors import GraphsimError
from graphsim.result import plain
from graphsim.serving.bottlenecks import Bottlenecks
from graphsim.serving.changes import changes_of
from graphsim.serving.goodput import has_limits
from graphsim.serving.scenario import Serving
from graphsim.serving.service import Service
from graphsim.units import seconds_text

MOST_REQUESTS = 20_000
"""Number of requests on which a change is tried: the first ones of longer runs."""
WORTH = 0.03
"""Least relative gain of a change that is reported."""
WORTH_SHARE = 0.005
"""The same for the share of requests that keep their limits."""
MOST_NAMED = 6

Progress = Callable[[int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Figures of a run by which changes are judged.

    attainment: share that keeps the limits, None without limits
    """

    requests_per_s: float
    ttft_s: float
    p99_ttft_s: float
    tpot_s: float
    p99_e2e_s: float
    attainment: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        return {name: plain(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One possible change and its outcome.

    devices: the factor by which it multiplies the number of devices
    """

    name: str
    outcome: Outcome
    devices: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeAdvice:
    """What limits a server, from its run, and what would help, the most helpful change first.

    tried: changes that were simulated, helpful or not
    notes: what they were simulated on
    """

    seen: Bottlenecks
    now: Outcome
    levers: tuple[Lever, ...] = ()
    tried: int = 0
    notes: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        levers = [
            {"name": lever.name, "devices": lever.devices} | lever.outcome.to_dict() for lever in self.levers
        ]  # fmt: skip
        return {
            "limits": self.seen.to_dict(), "now": self.now.to_dict(), "levers": levers, "tried": self.tried,
            "notes": list(self.notes), "failed": dict(self.failed),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [*self.seen.lines()]
        lines += [f"- {lever.name}: {_gain_text(self.now, lever)}" for lever in self.levers]
        if not self.levers:
            lines.append(f"none of {self.tried} changes that were simulated helps by {WORTH:.0%}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def advice_of(
    serving: Serving, service: Service, limits: Mapping[str, float], progress: Progress | None = None
) -> ServeAdvice:
    """Advice on a run. limits: `ttft_s`, `tpot_s`, `e2e_s` that requests should keep; without any, p99 E2E counts.

    Every change is simulated on the same requests, or the first `MOST_REQUESTS` of them. progress: called with the
    number of changes done and the name of the next one. KeyboardInterrupt ends it with what was simulated so far.
    """
    seen = serving.seen(service)
    notes: list[str] = []
    now = outcome_of(service, limits)
    if len(service.table) > MOST_REQUESTS:
        serving = serving.first(MOST_REQUESTS)
        now = outcome_of(serving.run(), limits)
        notes.append(f"changes were simulated on the first {MOST_REQUESTS:,} requests")
    found: list[Lever] = []
    failed: dict[str, str] = {}
    try:
        for change in changes_of(serving, seen):
            if progress is not None:
                progress(len(found), change.name)
            try:
                changed = change.serving().run()
            except GraphsimError as error:
                failed[change.name] = str(error)
                continue
            if changed.log.interrupted:
                raise KeyboardInterrupt
            found.append(Lever(name=change.name, outcome=outcome_of(changed, limits), devices=change.devices))
    except KeyboardInterrupt:
        notes.append("interrupted: not all changes were simulated")
    helpful = sorted((lever for lever in found if _helps(now, lever.outcome)), key=_order)
    return ServeAdvice(
        seen=seen, now=now, levers=tuple(helpful[:MOST_NAMED]), tried=len(found), notes=tuple(notes), failed=failed
    )


def outcome_of(service: Service, limits: Mapping[str, float]) -> Outcome:
    """The figures of a run."""
    found = service.summary()
    share = service.goodput(**limits).share if limits or has_limits(service.classes) else None
    return Outcome(
        requests_per_s=float(found["request_throughput"]), ttft_s=found["mean_ttft_ms"] / 1e3,
        p99_ttft_s=found["p99_ttft_ms"] / 1e3, tpot_s=found["mean_tpot_ms"] / 1e3,
        p99_e2e_s=found["p99_e2el_ms"] / 1e3, attainment=None if share is None else float(share),
    )  # fmt: skip


def _helps(now: Outcome, then: Outcome) -> bool:
    gained = (then.attainment or 0.0) - (now.attainment or 0.0)
    if abs(gained) > WORTH_SHARE:
        return gained > 0.0
    return then.p99_e2e_s < now.p99_e2e_s * (1.0 - WORTH)


def _order(lever: Lever) -> tuple[float, ...]:
    """Sort key: the share that keeps the limits, in whole percent; then changes without more devices come first."""
    return (-round(lever.outcome.attainment or 0.0, 2), lever.devices, lever.outcome.p99_e2e_s)


def _gain_text(now: Outcome, lever: Lever) -> str:
    then, told = lever.outcome, []
    if now.attainment is not None and then.attainment is not None:
        told.append(f"{then.attainment:.1%} keep the limits instead of {now.attainment:.1%}")
    told.append(f"p99 TTFT {seconds_text(then.p99_ttft_s)} ({then.p99_ttft_s / now.p99_ttft_s - 1.0:+.0%})")
    told.append(f"TPOT {seconds_text(then.tpot_s)} ({then.tpot_s / now.tpot_s - 1.0:+.0%})")
    told.append(f"p99 E2E {seconds_text(then.p99_e2e_s)} ({then.p99_e2e_s / now.p99_e2e_s - 1.0:+.0%})")
    if then.requests_per_s > now.requests_per_s * (1.0 + WORTH):
        told.append(f"{then.requests_per_s / now.requests_per_s - 1.0:+.0%} requests/s")
    return ", ".join(told)
