"""Pipeline parallelism: the stages of one micro-batch, repeated for every micro-batch, in GPipe's order.

Each stage has streams of its own; a pipeline schedule is just the launch order of the nodes
(GPipe, arXiv 1811.06965).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from graphsim.graph import Pass, Rule, Step, Value, add, inputs_of
from graphsim.ops import Input, Op, PipelineStage, Repeat
from graphsim.ops.structure import last_node
from graphsim.units import Num


def layer_ranges(layers: int, stages: int) -> list[range]:
    """Layers of each stage: as even as possible; the first stages take the remainder."""
    size, extra = divmod(layers, stages)
    ends = [size * (i + 1) + min(i + 1, extra) for i in range(stages)]
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def pipeline(micro_batches: Sequence[Sequence[nx.DiGraph]], reach: Num) -> nx.DiGraph:
    """One graph of the stages of every micro-batch; a send/receive passes each value to the next stage.

    reach: number of devices that the link between neighbouring stages must span
    """
    if len(micro_batches) == 1 and len(micro_batches[0]) == 1:
        return micro_batches[0][0]
    out = nx.DiGraph()
    for j, stages in enumerate(micro_batches):
        handed: str | None = None
        for s, stage in enumerate(stages):
            here = PipelineStage(number=s, micro_batch=j)
            for name, op in OnStage(here=here)(stage).nodes(data="op"):
                inputs = [Value(here.prefix + v.node, v.parts) for v in inputs_of(stage, name)]
                if isinstance(op, Input) and handed is not None:
                    inputs = [Value(handed)]
                add(out, here.prefix + name, op, inputs)
            if s + 1 < len(stages):
                handed = _hand_on(out, here, last_node(stage), reach)
    return out


def _hand_on(out: nx.DiGraph, here: PipelineStage, last: str, reach: Num) -> str:
    """Adds the send of a stage's result to the next stage."""
    from graphsim.ops import SendReceive

    result: Op = out.nodes[here.prefix + last]["op"]
    send = SendReceive(role="send", elems=result.out_elems, group=reach, activations=result.activations)
    return add(out, f"{here.prefix}send", _on_stage(send, here), [here.prefix + last])


@dataclass(frozen=True, slots=True, kw_only=True)
class OnStage(Pass):
    """Moves every operation to the streams of one pipeline stage."""

    here: PipelineStage

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Operations change their stream; a repeat has none of its own."""

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield name, _on_stage(op, self.here), inputs

        return rule


def _on_stage(op: Op, here: PipelineStage) -> Op:
    return replace(op, stage=here) if isinstance(op, Repeat) else replace(op, stream=here.stream(op.stream), stage=here)
