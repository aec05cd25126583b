"""Pipeline parallelism: the stages of one micro-batch, repeated for every micro-batch, in GPipe's order.

Each stage has streams of its own; a pipeline schedule is nothing but the launch order of the nodes
(GPipe, arXiv 1811.06965).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import networkx as nx

from graphsim.graph.rewriting import Value, add, inputs_of
from graphsim.ops import Input, Op, Repeat, SendReceive, Stage
from graphsim.ops.structure import last_node
from graphsim.units import Num


def layer_ranges(layers: int, stages: int) -> list[range]:
    """Layers of each stage: as even as possible, the first stages take what is left over."""
    size, extra = divmod(layers, stages)
    ends = [size * (i + 1) + min(i + 1, extra) for i in range(stages)]
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def pipeline(micro_batches: Sequence[Sequence[nx.DiGraph]], reach: Num) -> nx.DiGraph:
    """One graph of every micro-batch's stages; a send/receive hands each value to the next stage.

    reach: devices that the link between neighbouring stages must span
    """
    if len(micro_batches) == 1 and len(micro_batches[0]) == 1:
        return micro_batches[0][0]
    out = nx.DiGraph()
    for j, stages in enumerate(micro_batches):
        handed: str | None = None
        for s, stage in enumerate(stages):
            here = Stage(number=s, micro_batch=j)
            for name, op in stage.nodes(data="op"):
                inputs = [Value(here.prefix + v.node, v.parts) for v in inputs_of(stage, name)]
                if isinstance(op, Input) and handed is not None:
                    inputs = [Value(handed)]
                add(out, here.prefix + name, on_stage(op, here), inputs)
            if s + 1 < len(stages):
                handed = _hand_on(out, stage, here, reach)
    return out


def _hand_on(out: nx.DiGraph, graph: nx.DiGraph, stage: Stage, reach: Num) -> str:
    last = last_node(graph)
    op: Op = graph.nodes[last]["op"]
    send = SendReceive(role="send", elems=op.out_elems, group=reach, activations=op.activations)
    return add(out, f"{stage.prefix}send", on_stage(send, stage), [stage.prefix + last])


def on_stage(op: Op, stage: Stage) -> Op:
    """The operation on the streams of one stage, bodies of repeats included."""
    if not isinstance(op, Repeat):
        return replace(op, stream=stage.stream(op.stream), stage=stage)
    body = nx.DiGraph()
    for name, inner in op.body.nodes(data="op"):
        add(body, name, on_stage(inner, stage), inputs_of(op.body, name))
    return replace(op, body=body, stage=stage)
