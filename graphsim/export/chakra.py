"""A step as Chakra execution traces, one per device, for ASTRA-sim and other tools that replay them (extra `chakra`).

A file is a sequence of protobuf messages, each preceded by its length as a varint: one GlobalMetadata, then Nodes.
Attributes have the names and types that Chakra's feeder and ASTRA-sim read (mlcommons/chakra
src/feeder/et_feeder_node.cpp, astra-sim/astra-sim astra-sim/workload/Workload.cc, read November 2026).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.display.nodes import number, require
from graphsim.errors import ConfigError, choices_text
from graphsim.export.chakra_schema import COLLECTIVES, NODE_TYPES, message
from graphsim.export.spread import Turn, runs_of
from graphsim.files.present import path_of
from graphsim.files.written import read_bytes, write_bytes, write_text
from graphsim.ops import AllGather, AllReduce, AllToAll, Collective, ReduceScatter, SendReceive
from graphsim.result import Estimate

VERSION = "0.0.4"
_KINDS: tuple[tuple[type[Collective], str], ...] = (
    (AllReduce, "ALL_REDUCE"),
    (AllGather, "ALL_GATHER"),
    (ReduceScatter, "REDUCE_SCATTER"),
    (AllToAll, "ALL_TO_ALL"),
)


def to_chakra(estimate: Estimate, prefix: str | Path, *, phase: str = "prefill", scenario: int = 0) -> list[Path]:
    """Write `prefix.0.et`, `prefix.1.et`, … for every device of one replica and return the paths.

    phase: `prefill`, or `decode` for one step
    scenario: index of the scenario, if numbers are arrays
    Repeats are expanded. Computation nodes have flops, bytes and estimated time. Collectives have the bytes that a
    device holds before them, as ASTRA-sim counts them. Data dependencies are those of the graph; control dependencies
    are the order on a stream. If groups do not span all devices, `prefix.groups.json` lists them in ASTRA-sim's form.
    Raises ConfigError for an unknown phase or scenario, without protobuf, or if a path is not writable.
    """
    require("to_chakra", estimate, Estimate)
    phases = {"prefill": estimate.prefill, "decode": estimate.decode}
    if phase not in phases:
        raise ConfigError(f"phase = {phase!r} is not known; {choices_text(phase, phases)}")
    devices = _Devices(runs_of(phases[phase].graph, scenario), scenario)
    attributes = {name: getattr(estimate, name) for name in ("model", "hardware", "engine", "cost_model")} | {
        "phase": phase
    }
    attributes |= {"caution": estimate.caution} if estimate.caution else {}
    header = message("GlobalMetadata")(version=VERSION, attr=[_attribute(k, str(v)) for k, v in attributes.items()])
    start, paths = path_of(prefix, "prefix"), []
    for device in range(devices.count):
        content = b"".join(_framed(item) for item in (header, *devices.nodes(device)))
        paths.append(write_bytes(f"{start}.{device}.et", content))
    if devices.groups:
        groups = {str(number): list(ranks) for ranks, number in devices.groups.items()}
        paths.append(write_text(f"{start}.groups.json", json.dumps(groups)))
    return paths


def read_chakra(path: str | Path) -> tuple[Any, list[Any]]:
    """The GlobalMetadata message and the Node messages of a trace file.

    Raises ConfigError if the file cannot be read or is not a Chakra trace.
    """
    content, at, found = read_bytes(path), 0, list[Any]()
    unreadable = _decode_error()
    try:
        while at < len(content):
            size, at = _read_varint(content, at)
            if at + size > len(content):
                raise ValueError("a message extends beyond the end of the file")
            item = message("Node" if found else "GlobalMetadata")()
            item.ParseFromString(content[at : at + size])
            found.append(item)
            at += size
    except (ValueError, IndexError, unreadable) as error:
        raise ConfigError(f"path = '{path}' is not a Chakra execution trace: {error}") from None
    if not found:
        raise ConfigError(f"path = '{path}' is empty, expected a Chakra execution trace")
    return found[0], found[1:]


def _decode_error() -> type[Exception]:
    message("Node")
    from google.protobuf.message import DecodeError

    error: type[Exception] = DecodeError
    return error


@dataclass(slots=True)
class _Devices:
    """The runs of a step on each device: by pipeline stage, and within a stage by rank of its largest group."""

    runs: list[Turn]
    scenario: int
    groups: dict[tuple[int, ...], int] = field(default_factory=dict)
    stages: list[str] = field(init=False)
    width: int = field(init=False)
    drawn: dict[str, Turn] = field(init=False)
    inputs: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.stages = list(dict.fromkeys(_stage(run) for run in self.runs))
        sizes = [self._group(run) for run in self.runs if not isinstance(run.op, SendReceive)]
        self.width = max(sizes, default=1)
        self.drawn = {run.name: run for run in self.runs if run.latency_s > 0}
        self.inputs = {}
        for run in self.runs:  # dependencies pass through runs that take no time
            sources = [s for p in run.inputs for s in ([p] if p in self.drawn else self.inputs[p])]
            self.inputs[run.name] = list(dict.fromkeys(sources))

    @property
    def count(self) -> int:
        """Total number of devices."""
        return len(self.stages) * self.width

    def nodes(self, device: int) -> Iterator[Any]:
        """The Node messages of one device, in launch order."""
        stage, rank = divmod(device, self.width)
        ids: dict[str, int] = {}
        last: dict[str, int] = {}
        for run in self.drawn.values():
            own = _stage(run) == self.stages[stage]
            sends = isinstance(run.op, SendReceive)
            if not own and not (sends and self._receiver(run) == stage):
                continue
            ids[run.name] = len(ids)
            node = message("Node")(
                id=ids[run.name],
                name=run.name if own else f"{run.name}.receive",
                data_deps=[ids[p] for p in self.inputs[run.name] if p in ids] if own else [],
                start_time_micros=round(run.start_s * 1e6),
                duration_micros=max(round(run.latency_s * 1e6), 1),
            )
            if own:
                node.ctrl_deps.extend([last[run.op.stream]] if run.op.stream in last else [])
                last[run.op.stream] = ids[run.name]
            self._describe(node, run, stage, rank)
            yield node

    def _describe(self, node: Any, run: Turn, stage: int, rank: int) -> None:
        op, work = run.op, run.op.work()
        attributes: dict[str, Any] = {"is_cpu_op": False}
        if isinstance(op, SendReceive):
            own = _stage(run) == self.stages[stage]
            source, target = (end * self.width + rank for end in (self._sender(run), self._receiver(run)))
            tag = list(self.drawn).index(run.name)
            attributes |= {"comm_src": np.int32(source), "comm_dst": np.int32(target), "comm_tag": np.int32(tag)}
            attributes["comm_size"] = round(number(op.payload_bytes, self.scenario))
            node.type = NODE_TYPES.index("COMM_SEND_NODE" if own else "COMM_RECV_NODE")
        elif isinstance(op, Collective):
            attributes |= self._collective(op, self._group(run), stage, rank)
            node.type = NODE_TYPES.index("COMM_COLL_NODE")
        else:
            attributes["num_ops"] = round(number(work.flops + work.vector_flops, self.scenario))
            attributes["tensor_size"] = np.uint64(round(number(work.memory_bytes, self.scenario)))
            node.type = NODE_TYPES.index("COMP_NODE")
        attributes |= {"op": type(op).__name__, "role": op.role, "stream": op.stream, "latency_s": run.latency_s}
        attributes["residency"] = op.residency.name
        node.attr.extend(_attribute(name, value) for name, value in attributes.items())

    def _collective(self, op: Collective, size: int, stage: int, rank: int) -> dict[str, Any]:
        kind = next((name for cls, name in _KINDS if isinstance(op, cls)), None)
        if kind is None:
            raise ConfigError(f"'{type(op).__name__}' has no counterpart among Chakra's collectives")
        held = number(op.payload_bytes, self.scenario) / (size if kind == "ALL_GATHER" else 1)
        attributes: dict[str, Any] = {"comm_type": COLLECTIVES.index(kind), "comm_size": round(held)}
        if size < self.count:
            first = stage * self.width + rank - rank % size
            ranks = tuple(range(first, first + size))
            attributes["pg_name"] = str(self.groups.setdefault(ranks, len(self.groups) + 1))
        return attributes

    def _group(self, run: Turn) -> int:
        return round(number(run.op.group, self.scenario)) if isinstance(run.op, Collective) else 1

    def _sender(self, run: Turn) -> int:
        return self.stages.index(_stage(run))

    def _receiver(self, run: Turn) -> int:
        return self._sender(run) + 1


def _stage(run: Turn) -> str:
    return "" if run.op.stage is None else run.op.stage.name


def _attribute(name: str, value: Any) -> Any:
    """An attribute message whose field is chosen by the value's type; integers are int64."""
    attribute = message("AttributeProto")(name=name)
    if isinstance(value, bool):
        attribute.bool_val = value
    elif isinstance(value, np.int32):
        attribute.int32_val = int(value)
    elif isinstance(value, np.uint64):
        attribute.uint64_val = int(value)
    elif isinstance(value, int):
        attribute.int64_val = value
    elif isinstance(value, float):
        attribute.double_val = value
    else:
        attribute.string_val = str(value).encode("utf-8", errors="replace").decode()
    return attribute


def _framed(item: Any) -> bytes:
    content: bytes = item.SerializeToString()
    return _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A number as a varint: groups of 7 bits, least significant first, the high bit set on all but the last.

    Source: the protobuf encoding guide.
    """
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        group = content[at]
        value |= (group & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not group & 0x80:
            return value, at
