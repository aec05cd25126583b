"""Events of the Trace Event Format used by all timelines; see `graphsim.export.trace`."""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]


def meta(name: str, pid: int, tid: int, args: dict[str, Any]) -> Event:
    """An event that names or orders a process (tid 0) or a track."""
    return {"name": name, "ph": "M", "pid": pid, "tid": tid, "args": args}


def order(event: Event) -> tuple[float, float]:
    """Sort key of events: by time, enclosing slices before enclosed ones."""
    return event["ts"], -event.get("dur", 0.0)
