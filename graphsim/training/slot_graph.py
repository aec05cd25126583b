"""A pipeline schedule as a graph: a node for each slot and each send, with times, to be displayed like any other
graph.
"""

from __future__ import annotations

import networkx as nx

from graphsim.graph import add
from graphsim.ops import Op, SendReceive
from graphsim.ops.base import COMPUTE
from graphsim.ops.custom import Compute
from graphsim.ops.pipeline_stage import PipelineStage
from graphsim.training.pipelined import Pipelined
from graphsim.training.slot_order import Entry

NAMES = {"F": "forward", "B": "dgrad", "W": "wgrad", "BW": "backward"}


def name_of(entry: Entry) -> str:
    """The node's name: `mb0.stage1.forward`, `mb0.stage1.chunk1.backward`, `mb0.stage1.forward.send`."""
    slot = entry.slot
    chunk = f"chunk{slot.chunk}." if slot.chunk else ""
    name = f"{PipelineStage(number=entry.stage, micro_batch=slot.micro_batch).prefix}{chunk}{NAMES[slot.kind]}"
    return f"{name}.send" if entry.to >= 0 else name


def slot_graph(pipelined: Pipelined, *, sent_elems: float = 0.0) -> nx.DiGraph:
    """Slots and sends in launch order, with `latency_s`; `graphsim.graph.schedule` gives the times that they have.

    Each stage's slots are on its stream of compute, its sends on one of their own for each direction where they overlap
    it.
    sent_elems: of what is passed on
    """
    run, out = pipelined.run, nx.DiGraph()
    count, durations = len(run.entries), pipelined.finish_s - pipelined.start_s
    order = [i for wave in run.waves for i in wave.tolist()]
    names = [name_of(entry) for entry in run.entries]
    for i in order:
        entry, needed = run.entries[i], run.waits[i, 1:].tolist()
        stage = PipelineStage(number=entry.stage, micro_batch=entry.slot.micro_batch)
        inputs = [names[j] for j in dict.fromkeys(needed) if j < count]
        if entry.to < 0:
            role = NAMES[entry.slot.kind]
            op: Op = Compute(
                role=role, elems=sent_elems, reads=sent_elems, unchecked=True, stream=stage.stream(COMPUTE), stage=stage
            )
        else:
            stream = f"{NAMES[entry.slot.kind]} to stage{entry.to}" if run.overlapped else COMPUTE
            op = SendReceive(role="send", elems=sent_elems, group=2.0, stream=stage.stream(stream), stage=stage)
        add(out, names[i], op, inputs)
        out.nodes[names[i]]["latency_s"] = durations[i][()]
    return out
