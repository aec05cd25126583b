"""A request on a decode worker, whose keys and values another worker has computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphsim.serving.requests import Request

ASKS, LOADS, READY, JOINED = range(4)
"""It waits for blocks; has them while its keys and values are under way; has these; runs, or ran and was preempted."""


@dataclass(slots=True, eq=False)
class Handed(Request):
    """Where it stands on its way. awaited: whether the worker knows how long its client waits."""

    state: int = field(default=ASKS, init=False)
    awaited: bool = field(default=False, init=False)

    @classmethod
    def of(cls, request: Request) -> Handed:
        """The same request for a decode worker."""
        return cls(
            request.adapter, request.segments, request.goes_on, request.row, request.inputs, request.outputs,
            request.priority, request.sent_s,
        )  # fmt: skip
