"""A timeline for Perfetto (https://ui.perfetto.dev) and chrome://tracing.

The format: "Trace Event Format", Google, 2016,
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: complete events `X`, metadata `M`,
flows `s` and `f`; times in microseconds. Colour names: catapult's tracing/base/color_scheme.html (Perfetto colours by
name instead).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx

from graphsim.display.nodes import Entry, bound_of, entries, number, require
from graphsim.errors import ConfigError
from graphsim.export.serving_trace import serving_trace
from graphsim.export.spread import Turn, runs_of
from graphsim.export.trace_events import Event, meta, order
from graphsim.files.written import write_text
from graphsim.graph.critical import schedule
from graphsim.graph.sound import require_sound
from graphsim.ops import Op
from graphsim.ops.kinds import Kind, kind_of
from graphsim.result import Estimate, PhaseEstimate, plain
from graphsim.serving.served_run import ServedRun
from graphsim.training.estimate import TrainEstimate
from graphsim.training.view import FIGURES
from graphsim.units import Num

_COLOURS = {
    Kind.ATTENTION: "thread_state_runnable",
    Kind.FEED_FORWARD: "thread_state_running",
    Kind.PROJECTION: "rail_response",
    Kind.ELEMENTWISE: "generic_work",
    Kind.ENDS: "grey",
    Kind.STATE: "olive",
    Kind.LORA: "bad",
    Kind.MERGE: "yellow",
    Kind.COLLECTIVE: "rail_animation",
    Kind.OPTIMIZER: "terrible",
    Kind.OTHER: "white",
}

_ONE_TIME = "one-time work, before the first step"


def to_trace(
    estimate: Estimate | PhaseEstimate | TrainEstimate | ServedRun,
    path: str | Path | None = None,
    *,
    expand: bool = False,
    scenario: int = 0,
    **span: Any,
) -> dict[str, Any]:
    """The timeline of an estimate, a training step or a served run as a trace document, also written to `path`.

    A training step is shown as one micro-batch, forward and backward, followed by the update; with a pipeline, what
    each stage does with every micro-batch comes first. An estimate is shown as the prompt step, followed by one decode
    step at the mean context. There is one process per pipeline stage (devices of a tensor-parallel group do the same at
    the same time), one track per stream, and a separate process for one-time work.
    path: the file to write, None for none
    expand: show every iteration of a repeat in full, rather than the first in full and the others as one slice
    scenario: index of the scenario, if numbers are arrays
    span: start_s, end_s and requests of a served run, see `graphsim.export.serving_trace`
    Raises ConfigError if there is no such scenario or `path` is not writable.
    """
    if isinstance(estimate, ServedRun):
        return serving_trace(estimate, path, **span)
    if span:
        raise ConfigError(f"{next(iter(span))} applies to served runs; the timeline of an estimate is always complete")
    require("to_trace", estimate, Estimate, PhaseEstimate, TrainEstimate)
    graphs = _graphs(estimate)
    trace = _Trace(expand, scenario)
    for name, graph in graphs:
        trace.phase(name, graph)
    trace.one_time(graphs[0][1])
    document: dict[str, Any] = {
        "traceEvents": [*trace.names(), *sorted(trace.events, key=order)],
        "displayTimeUnit": "ns",
        "otherData": _summary(estimate, scenario),
    }
    if path is not None:
        write_text(path, json.dumps(document, ensure_ascii=True, allow_nan=False))
    return document


def _graphs(estimate: Estimate | PhaseEstimate | TrainEstimate) -> list[tuple[str, nx.DiGraph]]:
    """The graphs of the steps to show, in order, by name."""
    if isinstance(estimate, TrainEstimate):
        whole = [] if estimate.slots is None else [("pipeline", estimate.pipeline)]
        return [*whole, ("training", estimate.graph)]
    if isinstance(estimate, PhaseEstimate):  # any graph
        return [(estimate.name, schedule(require_sound(estimate.build())))]
    return [(phase.name, phase.graph) for phase in (estimate.prefill, estimate.decode)]


def _summary(estimate: Estimate | PhaseEstimate | TrainEstimate, scenario: int) -> dict[str, Any]:
    if isinstance(estimate, PhaseEstimate):
        return {}
    if isinstance(estimate, TrainEstimate):
        own = {name: number(getattr(estimate, name), scenario) for name in FIGURES}
        about = {"model": estimate.model, "hardware": estimate.hardware, "recipe": estimate.setup.recipe.name}
        return {**about, "cost_model": estimate.cost_model, **plain(own), "notes": list(estimate.notes)}
    figures = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s")
    values = {name: number(getattr(estimate, name), scenario) for name in figures}
    return {
        "model": estimate.model, "hardware": estimate.hardware, "engine": estimate.engine,
        "cost_model": estimate.cost_model, **plain(values),
        "notes": list(estimate.notes),
    }  # fmt: skip


@dataclass(slots=True)
class _Trace:
    """Collects events, and the processes and tracks that they use. Times are kept in nanoseconds, as integers."""

    expand: bool
    scenario: int
    events: list[Event] = field(default_factory=list)
    tracks: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    offset_ns: int = 0
    flows: int = 0

    def phase(self, name: str, graph: nx.DiGraph) -> None:
        """Append a step."""
        turns = runs_of(graph, self.scenario)
        end_ns = max((round(turn.finish_s * 1e9) for turn in turns), default=0)
        for process in dict.fromkeys(_place(turn.op)[0] for turn in turns):
            self._slice((process, "step"), f"{name} step", 0, end_ns, {"cat": "step"})
        drawn: dict[str, Turn] = {}
        folded: dict[tuple[str, str], list[Turn]] = {}
        for turn in turns:
            hidden = None if self.expand else _fold(turn)
            if hidden is not None:
                folded.setdefault((hidden, turn.op.stream), []).append(turn)
            elif turn.latency_s > 0:
                drawn[turn.name] = turn
        for turn in drawn.values():
            self._slice(_place(turn.op), turn.label, *_span(turn), self._look(turn))
        for (repeat, _), members in folded.items():
            self._folded(repeat, [turn for turn in members if turn.latency_s > 0])
        for source, target in _arrows(turns, drawn):
            self._flow(source, target)
        self.offset_ns += end_ns

    def one_time(self, graph: nx.DiGraph) -> None:
        """Add one-time operations, one after another from time zero."""
        at = 0
        for entry in entries(graph):
            if entry.op.once and "latency_s" in entry.data:
                end = at + round(number(entry.data["latency_s"], self.scenario) * entry.times * 1e9)
                look = self._look(entry) | {"id": None}
                label = f"{entry.label} × {entry.times}" if entry.times > 1 else entry.label
                self._slice((_ONE_TIME, "merge and load"), label, at, end, look, offset=0)
                at = end

    def names(self) -> Iterator[Event]:
        """Events that name and order processes and tracks."""
        for (process, stream), (pid, tid) in self.tracks.items():
            if tid == 1:
                yield meta("process_name", pid, 0, {"name": process})
                yield meta("process_sort_index", pid, 0, {"sort_index": 999 if process == _ONE_TIME else pid})
            yield meta("thread_name", pid, tid, {"name": stream})
            yield meta("thread_sort_index", pid, tid, {"sort_index": tid})

    def _track(self, place: tuple[str, str]) -> tuple[int, int]:
        if place not in self.tracks:
            pids = {process: pid for (process, _), (pid, _) in self.tracks.items()}
            tid = 1 + sum(process == place[0] for process, _ in self.tracks)
            self.tracks[place] = pids.get(place[0], len(pids) + 1), tid
        return self.tracks[place]

    def _slice(
        self, place: tuple[str, str], name: str, start: int, end: int, look: Event, offset: int | None = None
    ) -> None:
        pid, tid = self._track(place)
        begin = start + (self.offset_ns if offset is None else offset)
        event = {"name": name, "ph": "X", "ts": begin / 1e3, "dur": (end - start) / 1e3, "pid": pid, "tid": tid}
        self.events.append(event | {key: value for key, value in look.items() if value is not None})

    def _look(self, item: Turn | Entry) -> Event:
        op, kind, work = item.op, kind_of(item.op), item.op.work()
        args: dict[str, Any] = {"node": item.name, "op": type(op).__name__, "op_type": op.op_type.name}
        args |= {name: self._count(value) for name, value in op.dims().items()}
        for name in ("flops", "read_bytes", "write_bytes", "message_bytes"):
            args[name] = self._count(getattr(work, name))
        args["residency"] = op.residency.name
        args["bound"] = bound_of(item.data, self.scenario)
        if isinstance(item, Turn):
            args["critical"] = item.critical
            slack_s = 0.0 if item.critical else number(item.data["slack_s"], self.scenario)
            args["slack_us"] = max(slack_s, 0.0) * 1e6
        return {"cat": kind.value, "cname": _COLOURS[kind], "args": plain(args)}

    def _count(self, value: Num) -> float:
        """A quantity, as an integer if it is one."""
        found = number(value, self.scenario)
        return int(found) if found.is_integer() else found

    def _folded(self, repeat: str, members: list[Turn]) -> None:
        if not members:
            return
        start = min(_span(turn)[0] for turn in members)
        end = max(_span(turn)[1] for turn in members)
        turns = len({turn.turns for turn in members})
        args = {"turns": turns, "runs": len(members), "busy_us": sum(turn.latency_s for turn in members) * 1e6}
        self._slice(_place(members[0].op), f"{repeat}: {turns} more turns", start, end, {"cat": "repeat", "args": args})

    def _flow(self, source: Turn, target: Turn) -> None:
        """An arrow from the end of one slice to the start of another; each end lies inside its slice."""
        self.flows += 1
        (begin, end), (arrive, _) = _span(source), _span(target)
        common = {"cat": "data", "name": "data", "id": self.flows}
        for phase, turn, at in (("s", source, max(begin, end - 1)), ("f", target, arrive)):
            pid, tid = self._track(_place(turn.op))
            event = common | {"ph": phase, "ts": (at + self.offset_ns) / 1e3, "pid": pid, "tid": tid}
            self.events.append(event | ({"bp": "e"} if phase == "f" else {}))


def _place(op: Op) -> tuple[str, str]:
    """Process and track: the stage, or the device without a pipeline, and the stream."""
    if op.stage is None:
        return "device", op.stream
    return op.stage.name, op.stream.removeprefix(op.stage.stream(""))


def _span(turn: Turn) -> tuple[int, int]:
    return round(turn.start_s * 1e9), round(turn.finish_s * 1e9)


def _fold(turn: Turn) -> str | None:
    """The repeat whose second or later iteration a run belongs to."""
    return next((repeat for repeat, i in turn.turns if i > 0), None)


def _arrows(turns: list[Turn], drawn: dict[str, Turn]) -> Iterator[tuple[Turn, Turn]]:
    """Data dependencies between drawn slices, through runs that take no time."""
    sources: dict[str, list[str]] = {}
    for turn in turns:
        found = list(dict.fromkeys(s for p in turn.inputs for s in ([p] if p in drawn else sources[p])))
        sources[turn.name] = found
        if turn.name in drawn:
            yield from ((drawn[source], turn) for source in found)
