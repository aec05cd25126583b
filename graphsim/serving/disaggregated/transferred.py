"""A request on a decode worker, whose keys and values another worker has computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphsim.serving.requests import Request

ASKS, LOADS, READY, JOINED = range(4)
"""Waiting for blocks; has blocks while its keys and values are transferred; transfer complete; running, or
preempted.
"""


@dataclass(slots=True, eq=False)
class TransferredRequest(Request):
    """The state of a handed-over request.

    awaited: whether the worker knows how long its client waits
    """

    state: int = field(default=ASKS, init=False)
    awaited: bool = field(default=False, init=False)

    @classmethod
    def of(cls, request: Request) -> TransferredRequest:
        """The same request for a decode worker."""
        return cls(
            request.adapter, request.segments, request.goes_on, request.row, request.inputs, request.outputs,
            request.priority, request.sent_s,
        )  # fmt: skip
