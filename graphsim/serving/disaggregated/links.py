"""Transfers over the links of workers: one at a time out of each prefill worker, and one at a time into each decode
worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphsim.serving.disaggregated.transfer import TransferPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A transfer: its request, workers and tokens, and when it could begin, had a link, and was done; its bytes."""

    row: int
    sender: int
    receiver: int
    tokens: int
    ready_s: float
    start_s: float
    end_s: float
    bytes: float


@dataclass(slots=True)
class Links:
    """When each link becomes free.

    sent: all transfers so far
    """

    way: TransferPlan
    senders: list[float]
    receivers: list[float]
    sent: list[Sent] = field(default_factory=list)

    def send(self, row: int, sender: int, receiver: int, tokens: int, ready_s: float, computed_s: float) -> float:
        """When the last byte of a prompt of this many tokens arrives.

        ready_s: when all of it is ready
        computed_s: seconds of computation before that, during which parts were
            already sent
        """
        if not tokens:
            return ready_s
        left_s = self.way.left_s(tokens, computed_s)
        busy_s = min(self.way.busy_s(tokens), left_s)
        start_s = max(ready_s + left_s - busy_s, self.senders[sender], self.receivers[receiver])
        end_s = start_s + busy_s
        self.senders[sender] = self.receivers[receiver] = end_s
        self.sent.append(
            Sent(
                row=row, sender=sender, receiver=receiver, tokens=tokens, ready_s=ready_s, start_s=start_s,
                end_s=end_s, bytes=self.way.bytes(tokens),
            )
        )  # fmt: skip
        return end_s
