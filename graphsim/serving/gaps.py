"""Gaps between two tokens of a sequence, counted rather than stored per token."""

from __future__ import annotations

from collections.abc import Iterable, Set

from graphsim.serving.requests import Request
from graphsim.serving.rows import Rows


class Gaps:
    """Sequences get a token in every step, except for those that a step skips, whose next gap is longer."""

    def __init__(self, rows: Rows | list[tuple[float, int]]) -> None:
        self._rows = rows
        self._paused: dict[float, int] = {}  # sequences by the time of their last token, while prompts delay them all
        self._late: dict[Request, float] = {}  # single sequences that were skipped

    def pause(self, start_s: float, sequences: int) -> None:
        """A step of prompts alone begins; this number of sequences wait for its end."""
        if not self._paused and sequences:
            self._paused[start_s] = sequences

    def token(self, now: float, request: Request) -> None:
        """A sequence got the token of its prompt's step, the first one or the next after a preemption."""
        if request.last_token_s >= 0.0:
            self._rows.append((now - request.last_token_s, 1))
        request.last_token_s = now

    def join_paused(self, now: float) -> None:
        """A sequence joins those delayed by prompts."""
        self._paused[now] = self._paused.get(now, 0) + 1

    def pass_over(self, start_s: float, requests: Iterable[Request]) -> None:
        """These requests get no token in the step that begins then."""
        for request in requests:
            self._late.setdefault(request, start_s)

    def steps(self, start_s: float, first_s: float, seconds: float, steps: int, batch: int, over: Set[Request]) -> None:
        """Record that a number of sequences get a token in each of these steps; over: those the first step skips."""
        if not self._late and not self._paused:
            self._rows.append((seconds / steps, batch * steps))
            return
        first = batch
        for request in [request for request in self._late if request not in over]:
            self._rows.append((start_s + first_s - self._late.pop(request), 1))
            first -= 1
        for last_s, count in self._paused.items():
            if last_s == start_s:
                continue
            self._rows.append((start_s + first_s - last_s, count))
            first -= count
        self._paused.clear()
        if first:
            self._rows.append((first_s, first))
        if steps > 1:
            self._rows.append(((seconds - first_s) / (steps - 1), batch * (steps - 1)))

    def leaves(self, now: float, request: Request) -> None:
        """A sequence is taken out between two tokens."""
        last = self._late.pop(request, None)
        if last is None and self._paused:
            last = request.last_token_s if request.last_token_s in self._paused else next(iter(self._paused))
            self._paused[last] -= 1
            if not self._paused[last]:
                del self._paused[last]
        request.last_token_s = now if last is None else last
