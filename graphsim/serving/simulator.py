"""One server that another program drives: another simulator, or a learner that decides who is sent what."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any

from graphsim.brief import figures_text
from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.errors import ConfigError
from graphsim.serving.driven_engine import DrivenEngine
from graphsim.serving.requests import Request
from graphsim.serving.run_log import STATUSES, RunLog
from graphsim.serving.serve import serving_of
from graphsim.traffic.table import BASE
from graphsim.traffic.traffic import Traffic
from graphsim.units import as_number, bounds_text, checked_number, short

USUAL_PROMPT, MOST_TOKENS = 512, 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a request ended. number: as `submit` gave it; status: `finished`, or `too long` for what never can run.

    sent_s: when it was submitted for
    received_s: when the scheduler knew of it
    admitted_s: when it first ran;
    first_token_s, finished_s: as its client sees them; nan where it did not come to that
    """

    number: int
    status: str
    adapter: int | None
    input_tokens: int
    output_tokens: int
    sent_s: float
    received_s: float
    admitted_s: float
    first_token_s: float
    finished_s: float
    preemptions: int
    cached_tokens: int
    load_stall_s: float
    loaded_tokens: int

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token."""
        return self.first_token_s - self.sent_s

    @property
    def tpot_s(self) -> float:
        """Mean seconds of each further token; nan of a single one."""
        further = self.output_tokens - 1
        return (self.finished_s - self.first_token_s) / further if further else nan

    @property
    def e2e_s(self) -> float:
        """Seconds to the last token."""
        return self.finished_s - self.sent_s


class _DiscardingLog:
    """A log whose rows are discarded: a server may be driven for as long as its driver likes."""

    def append(self, row: Any) -> None:
        """Nothing is kept."""


class Simulator:
    """A server on its own clock, driven one event at a time.

    An event is a step with prompts, a run of identical decode steps, or a wait (`DrivenEngine`). It begins when
    `next_time` is read or `step` is called; `step` ends it and returns the requests that ended. Submit requests that
    arrive up to `now` before that; later ones may be submitted at any time before the event begins. Memory grows with
    requests in flight, not with those that have ended.
    """

    def __init__(
        self, model: ModelRef | Deployment, hardware: HardwareRef | None = None, *, adapters: int = 0,
        ranks: Sequence[int] | None = None, mean_prompt: int = USUAL_PROMPT, **served: Any,
    ) -> None:  # fmt: skip
        """An idle server at 0 s.

        model, hardware: as in `serve`, or a `Deployment` in place of them; served: further arguments of it (lora,
            limits, engine, strategy, host, …)
        adapters: registered ones, and ranks of each
        mean_prompt: tokens of a prompt on average, by which a step with
            many is taken to hold several
        Raises ConfigError as `serve` does.
        """
        told: dict[str, Any] = {"adapters": adapters, "ranks": ranks} if adapters else {}
        traffic = Traffic.poisson(rate=1.0, requests=1, input_tokens=mean_prompt, output_tokens=1, **told)
        where = (traffic,) if isinstance(model, Deployment) else (hardware, traffic)
        serving = serving_of(model, *where, **served)
        if serving.fleet.is_fleet:
            raise ConfigError("a Simulator is one server; make several of them, one for each replica")
        self._adapters, self._front = adapters, serving.front
        self._name = f"of {serving.deployment.model.name} on {serving.deployment.device.name}"
        self._log = _growing_log()
        self.rules = serving.rules
        self._driven = DrivenEngine(
            self.rules, serving.run_price, log=self._log, reply_s=self._front.reply_s, store=serving.store,
            weights=serving.weights,
        )  # fmt: skip
        self._requests: dict[int, tuple[int, Request]] = {}
        self._free: list[int] = []
        self._submitted = 0

    def __repr__(self) -> str:
        figures = {"now_s": self.now, "running": float(self.running), "waiting": float(self.waiting)}
        return figures_text("Simulator", figures, of=self._name)

    @property
    def now(self) -> float:
        """Seconds: where the event under way, or the next one, begins."""
        return self._driven.now

    @property
    def next_time(self) -> float:
        """When the event under way ends; inf where nothing is left to do."""
        return self._driven.next_time

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self._driven.running

    @property
    def waiting(self) -> int:
        """Requests before it, those on their way to the scheduler included."""
        return self._driven.waiting

    @property
    def kv_use(self) -> float:
        """Share of the KV cache's blocks in use."""
        return self._driven.kv_blocks(self.now) / max(self.rules.kv_blocks, 1)

    @property
    def resident(self) -> list[int]:
        """Adapters in a slot."""
        store = self._driven.store
        return [] if store is None else sorted(adapter for adapter in store.slots if adapter != BASE)

    def submit(
        self, *, input_tokens: int, output_tokens: int, adapter: int | None = None, at: float | None = None,
        priority: int = 0,
    ) -> int:  # fmt: skip
        """Submit a request that its client sends at a given time; returns its number.

        adapter: counted from 0, None for the base model
        at: seconds, `now` by default
        priority: lower first.
        Raises ConfigError for a request that is not allowed, or a time before `now`.
        """
        inputs = int(checked_number("submit: input_tokens", input_tokens, 1, MOST_TOKENS, one=True))
        outputs = int(checked_number("submit: output_tokens", output_tokens, 1, MOST_TOKENS, one=True))
        if adapter is not None and not (isinstance(adapter, int) and 0 <= adapter < self._adapters):
            known = f"adapters are 0 to {self._adapters - 1}" if self._adapters else "no adapters are registered"
            raise ConfigError(f"submit: adapter = {short(adapter)} does not exist; {known}")
        sent_s = self.now if at is None else as_number(at)
        if not isinstance(sent_s, float) or not self.now <= sent_s < inf:
            raise ConfigError(f"submit: at = {short(at)} is not allowed; expected seconds {bounds_text(self.now)}")
        row = self._free.pop() if self._free else _grown(self._log)
        request = Request(BASE if adapter is None else adapter, (), False, row, inputs, outputs, priority, sent_s)
        number, self._submitted = self._submitted, self._submitted + 1
        self._requests[row] = number, request
        received_s = sent_s + self._front.request_s + self._front.token_s * inputs
        self._driven.submit(request, received_s, place=number)
        return number

    def step(self) -> list[Answer]:
        """End the current event, or the next one; returns the requests that ended with it.

        Raises ConfigError if nothing is left to do: see `next_time`.
        """
        found = [self._answer(ended.row) for ended in self._driven.step()]
        self._log.evicted.clear()
        return found

    def _answer(self, row: int) -> Answer:
        number, request = self._requests.pop(row)
        log, adapter = self._log, None if request.adapter == BASE else request.adapter
        times: dict[str, Any] = {name: float(getattr(log, name)[row]) for name in TIMES}
        counts: dict[str, Any] = {name: int(getattr(log, name)[row]) for name in COUNTS}
        found = Answer(
            number=number, status=STATUSES[log.status[row]], adapter=adapter, input_tokens=request.inputs,
            output_tokens=request.outputs, **times, **counts,
        )  # fmt: skip
        for name in (*TIMES, *COUNTS, "status"):
            getattr(log, name)[row] = _EMPTY[name]
        self._free.append(row)
        return found


TIMES = ("sent_s", "received_s", "admitted_s", "first_token_s", "finished_s", "load_stall_s")
COUNTS = ("preemptions", "cached_tokens", "loaded_tokens")
_EMPTY: dict[str, Any] = dict.fromkeys(TIMES, nan) | {"load_stall_s": 0.0} | dict.fromkeys((*COUNTS, "status"), 0)


def _growing_log() -> RunLog:
    """A log whose columns grow by a row for each request in flight."""
    columns: dict[str, Any] = {name: array("q" if name in (*COUNTS, "status") else "d") for name in _EMPTY}
    return RunLog(**columns, runs=_DiscardingLog(), gaps=_DiscardingLog())  # type: ignore[arg-type]


def _grown(log: RunLog) -> int:
    """One more row; returns its number."""
    for name, empty in _EMPTY.items():
        getattr(log, name).append(empty)
    return len(log.sent_s) - 1
