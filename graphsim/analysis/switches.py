"""Points where an estimate decreases as work grows, and the kernel that runs from there on.

The cost model is evaluated for larger work: one more request, twice as many, one more prompt token, twice as many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import networkx as nx
import numpy as np

from graphsim.cost.regimes import regime
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.scenarios import take
from graphsim.display.nodes import entries, number
from graphsim.errors import GraphsimError
from graphsim.graph.schedule import makespan_s
from graphsim.ops import Op
from graphsim.ops.base import Work
from graphsim.result import Estimate
from graphsim.symbolic.refusal import CONFUSED
from graphsim.symbolic.substitute import with_fields
from graphsim.units import seconds_text

LEAST_FALL = 0.01
"""Fraction by which a node's time must decrease to be reported: fits of measured times fluctuate by less."""

MOST = 3
"""Maximum number of reported nodes per quantity: those with the largest decrease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A node whose time decreases although its work grows.

    quantity: `ttft_s` or `tpot_s`
    step: the change of the work, such as `batch 128 instead of 127`
    times: number of runs of the node
    before_s, after_s: seconds of one run
    step_before_s, step_after_s: seconds of the model's whole step
    kernel_before, kernel_after: the kernel that runs it, if the cost model knows it
    """

    quantity: str
    node: str
    step: str
    times: int
    before_s: float
    after_s: float
    step_before_s: float
    step_after_s: float
    kernel_before: str = ""
    kernel_after: str = ""

    @property
    def gained_s(self) -> float:
        """Seconds that the model's step saves."""
        return self.times * (self.before_s - self.after_s)

    def __str__(self) -> str:
        text = (
            f"{self.quantity}: with {self.step}, {self.node} takes {seconds_text(self.after_s)} instead of "
            f"{seconds_text(self.before_s)} though it has more to do: "
        )
        if self.kernel_before != self.kernel_after:
            text += f"its kernel switches from {self.kernel_before} to {self.kernel_after}"
        else:
            text += "the fit of the measured kernels falls there"
        before, after = seconds_text(self.step_before_s), seconds_text(self.step_after_s)
        falls = self.step_after_s < self.step_before_s and before != after
        return f"{text}; the whole step falls from {before} to {after}" if falls else text


def switches_of(estimate: Estimate, scenario: int = 0) -> tuple[Switch, ...]:
    """The nodes of prompt and decode step that become faster with more work, those that save most first.

    estimate: the estimate
    scenario: index of the scenario
    Raises ConfigError if there is no such scenario.
    """
    inference = estimate.inference
    if inference is None:
        return ()
    number(estimate.latency_s, scenario)  # raises an error if there is no such scenario
    here = inference if inference.scenarios is None else take(inference, scenario)
    found: list[Switch] = []
    for quantity in ("ttft_s", "tpot_s"):
        fallen = sorted(_fallen(here, quantity), key=lambda switch: -switch.gained_s)
        first = {switch.node: switch for switch in reversed(fallen)}
        found += sorted(first.values(), key=lambda switch: -switch.gained_s)[:MOST]
    return tuple(found)


def _further(requests: Requests) -> dict[str, Requests]:
    """The requests with more work, by the description of the change."""
    found: dict[str, Requests] = {}
    for name, what in (("batch", "batch"), ("input_tokens", "prompt tokens")):
        now = float(getattr(requests, name))
        for more in (now + 1.0, 2.0 * now):
            words = f"{more:.0f} {what}" if name == "input_tokens" else f"{what} {more:.0f}"
            found[f"{words} instead of {now:.0f}"] = with_fields(requests, {name: more})
    return found


def _fallen(here: Inference, quantity: str) -> Iterator[Switch]:
    further = _further(here.requests)
    now, *later = _priced(here, quantity, [here.requests, *further.values()])
    for step, then in zip(further, later, strict=True):
        if now is None or then is None:
            continue
        for name, (op, latency_s, times) in now.nodes.items():
            if name not in then.nodes:
                continue
            more, further_s, _ = then.nodes[name]
            if further_s < latency_s * (1.0 - LEAST_FALL) and _has_more_to_do(op.work(), more.work()):
                yield Switch(
                    quantity=quantity, node=name, step=step, times=times, before_s=latency_s, after_s=further_s,
                    step_before_s=now.latency_s, step_after_s=then.latency_s,
                    kernel_before=regime(op, here.price, here.hardware),
                    kernel_after=regime(more, here.price, here.hardware),
                )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Priced:
    """One priced step: its time, and for each node the operation, the time of one run, and the number of runs."""

    latency_s: float
    nodes: dict[str, tuple[Op, float, int]]


def _priced(here: Inference, quantity: str, asked: Sequence[Requests]) -> list[_Priced | None]:
    """The priced steps of several requests, evaluated together if possible; None for a step that cannot run."""
    numeric = [field.name for field in fields(Requests) if field.type == "Num"]
    arrays = {name: np.array([getattr(one, name) for one in asked], dtype=float) for name in numeric}
    try:
        graph = _graph(replace(here, requests=with_fields(here.requests, arrays)), quantity)
        return [_read(graph, i) for i in range(len(asked))]
    except (GraphsimError, *CONFUSED):
        return [_alone(replace(here, requests=one), quantity) for one in asked]


def _alone(here: Inference, quantity: str) -> _Priced | None:
    try:
        return _read(_graph(here, quantity), 0)
    except (GraphsimError, *CONFUSED):
        return None


def _graph(inference: Inference, quantity: str) -> nx.DiGraph:
    return inference.prefill_graph() if quantity == "ttft_s" else inference.decode_graph()


def _read(graph: nx.DiGraph, scenario: int) -> _Priced:
    nodes = {
        entry.name: (take(entry.op, scenario), number(entry.data["latency_s"], scenario), entry.times)
        for entry in entries(graph)
        if not entry.op.once
    }
    return _Priced(latency_s=number(makespan_s(graph), scenario), nodes=nodes)


def _has_more_to_do(before: Work, after: Work) -> bool:
    """Whether some component of the work grows and none shrinks."""
    amounts = [(number(getattr(before, f.name)), number(getattr(after, f.name))) for f in fields(Work)]
    return all(b >= a for a, b in amounts) and any(b > a for a, b in amounts)
