"""Two halves of a step that take turns, so that the exchanges of one overlap the computation of the other.

SGLang's two-batch overlap (`--enable-two-batch-overlap`) and vLLM's dual-batch overlap (`--enable-dbo`,
docs/design/dbo.md) hand over at each dispatch to the experts and each combine: the work after an exchange waits for
the other half's work up to that half's own exchange. Both halves share the device's streams; only the order of
launches matters. Each half launches its own kernels and reads the weights of its own. All-reduces of a tensor-parallel
group run among the kernels, as engines launch them; link contention with the other half's exchange, and the cores that
an exchange may occupy (20 by default for DeepEP's kernels for prompts), are not modelled.

Among repeated layers, a turn goes from the last exchange of one layer to the first of the next. So the first layer's
start and the last layer's end are outside the repeat, whose body passes on the values that cross its boundary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import networkx as nx

from graphsim.graph import Step, Value, add, edge_elems, inputs_of
from graphsim.ops import (
    COMPUTE,
    Collective,
    ExchangeTokens,
    GatherTokens,
    Handed,
    Input,
    Join,
    Op,
    Part,
    Repeat,
    ScatterTokens,
)
from graphsim.ops.structure import last_node
from graphsim.units import Num

HALVES = ("first", "second")

Turn = list[Step]
"""The launches of one half before the other one continues."""


def exchanges(op: Op) -> bool:
    """Whether an operation sends tokens to their experts' devices or back; of a repeat, whether its body does."""
    if isinstance(op, Repeat):
        return any(exchanges(inner) for _, inner in op.body.nodes(data="op"))
    return isinstance(op, ExchangeTokens | GatherTokens | ScatterTokens)


def two_batches(first: nx.DiGraph, second: nx.DiGraph, whole: nx.DiGraph) -> nx.DiGraph:
    """One graph of both halves' graphs, which are alike except for their numbers.

    whole: of all tokens together, as those after the last layers that exchange tokens are again
    """
    out, ahead = nx.DiGraph(), _up_to_the_last_exchange(first)
    halves = [_Half(name, graph, ahead) for name, graph in zip(HALVES, (first, second), strict=True)]
    for turns in zip(*(half.turns() for half in halves), strict=True):
        loops = [turn for turn in turns if isinstance(turn, _Loop)]
        if loops:
            _add_loop(out, loops)
        else:
            _launch(out, [turn for turn in turns if not isinstance(turn, _Loop)])
    end = _Block(whole, "", parts=_joined(out, whole, halves))
    _launch(out, [end.steps([node for node in whole if node not in ahead])])
    return out


def _up_to_the_last_exchange(graph: nx.DiGraph) -> list[str]:
    nodes = list(graph)
    last = max(i for i, (_, op) in enumerate(graph.nodes(data="op")) if exchanges(op))
    return nodes[: last + 1]


def _joined(out: nx.DiGraph, whole: nx.DiGraph, halves: list[_Half]) -> dict[Value, Value]:
    """The joined values of both halves, for consumers outside the halves."""
    found: dict[Value, Value] = {}
    for value, part in _crossing(whole, halves[0].ahead).items():
        made: Op = whole.nodes[value.node]["op"]
        both = Join(role="both", elems=part.width, activations=made.activations)
        found[value] = Value(add(out, f"{part.name}.both", both, [half.block.values([value])[0] for half in halves]))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loop:
    """The layers between a repeat's first and last one, of one half.

    given: inputs of its first body
    turns: of a body, from the first exchange of a layer to that of the next
    entry, left: the body's nodes for what it takes from the one before and passes on
    taken: what the last one left
    """

    name: str
    repeat: Repeat
    given: Step
    entry: Step
    turns: list[Turn]
    left: Step
    taken: Step


def _launch(out: nx.DiGraph, turns: list[Turn]) -> None:
    for turn in turns:
        for name, op, inputs in turn:
            add(out, name, op, inputs)


def _add_loop(out: nx.DiGraph, loops: list[_Loop]) -> None:
    """The first half's values are passed on last, so that the block's result is ready before any half needs it."""
    body = nx.DiGraph()
    _launch(body, [[loop.entry for loop in loops]])
    for turns in zip(*(loop.turns for loop in loops), strict=True):
        _launch(body, list(turns))
    _launch(body, [[loop.left for loop in reversed(loops)]])
    _launch(out, [[loop.given for loop in loops]])
    one = loops[0]
    repeat = replace(one.repeat, body=body, times=one.repeat.times - 1)
    _launch(out, [[(one.name, repeat, [Value(loop.given[0]) for loop in loops])], [loop.taken for loop in loops]])


@dataclass(frozen=True, slots=True)
class _Half:
    """One half's nodes before the halves are joined again, under separate names."""

    name: str
    graph: nx.DiGraph
    ahead: list[str]
    block: _Block = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", _Block(self.graph, f"{self.name}."))

    def turns(self) -> Iterator[Turn | _Loop]:
        """Its turns, in order."""
        block, turn = self.block, Turn()
        for node in self.ahead:
            op: Op = self.graph.nodes[node]["op"]
            if not (isinstance(op, Repeat) and exchanges(op)):
                turn.append(block.step(node))
                if exchanges(op):
                    yield turn
                    turn = []
                continue
            layer = _Block(op.body, f"{self.name}.{node}.0.", given=block.inputs(node))
            sections = layer.sections()
            yield turn + layer.steps(sections[0])
            if op.times > 1:
                loop, layer = self._loop(node, op, layer, sections)
                yield loop
            for section in sections[1:-1]:
                yield layer.steps(section)
            turn = layer.steps(sections[-1])
            block.stands[node] = layer.stands[last_node(op.body)]
        yield turn

    def _loop(self, node: str, repeat: Repeat, layer: _Block, sections: list[list[str]]) -> tuple[_Loop, _Block]:
        """The layers after the first, whose first section exists already; and the last one, without that section."""
        body, start = repeat.body, sections[0]
        crossing = _crossing(body, start)
        handed = Handed(
            role="handed",
            stream=f"{self.name}.handed",
            elems=sum((part.width for part in crossing.values()), start=0.0),
            parts=tuple(crossing.values()),
            activations=body.nodes[last_node(body)]["op"].activations,
        )
        entry, left = f"{self.name}.taken", f"{self.name}.left"
        inner = _Block(body, f"{self.name}.", parts=_parts(crossing, entry))
        turns = [inner.steps(section) for section in sections[1:]]
        following = _Block(body, f"{self.name}.", given=[inner.stands[last_node(body)]])
        turns[-1] += following.steps(start)
        given, taken = f"{self.name}.{node}.handed", f"{self.name}.{node}.taken"
        loop = _Loop(
            name=node, repeat=repeat, turns=turns, entry=(entry, handed, []),
            given=(given, handed, layer.values(crossing)), left=(left, handed, following.values(crossing)),
            taken=(taken, handed, [Value(node)]),
        )  # fmt: skip
        last = _Block(body, f"{self.name}.{node}.{repeat.times - 1}.", parts=_parts(crossing, taken))
        return loop, last


Crossing = dict[Value, Part]
"""Values that cross a layer's first exchange."""


def _crossing(body: nx.DiGraph, start: list[str]) -> Crossing:
    found, ahead = Crossing(), set(start)
    for node in body:
        for value in [] if node in ahead else inputs_of(body, node):
            if value.node in ahead:
                name = ".".join((value.node, *value.parts))
                elems: Num = edge_elems(body, value.node, node)
                found[value] = Part(name=name, width=elems)
    return found


def _parts(crossing: Crossing, node: str) -> dict[Value, Value]:
    return {value: Value(node, (part.name,)) for value, part in crossing.items()}


@dataclass(slots=True)
class _Block:
    """Nodes of one graph under names with a prefix.

    given: replacement of the block's incoming value, if any
    parts: replacements of values from outside
    stands: replacements of the block's own nodes
    """

    graph: nx.DiGraph
    prefix: str
    given: list[Value] = field(default_factory=list)
    parts: dict[Value, Value] = field(default_factory=dict)
    stands: dict[str, Value] = field(default_factory=dict)

    def sections(self) -> list[list[str]]:
        """The nodes, cut after each exchange."""
        found: list[list[str]] = [[]]
        for node, op in self.graph.nodes(data="op"):
            found[-1].append(node)
            if exchanges(op):
                found.append([])
        return found

    def steps(self, nodes: list[str]) -> Turn:
        """The steps of some nodes; the incoming value is replaced by `given`."""
        found = Turn()
        for node in nodes:
            if self.given and isinstance(self.graph.nodes[node]["op"], Input):
                self.stands[node] = self.given[0]
            else:
                found.append(self.step(node))
        return found

    def step(self, node: str) -> Step:
        """One node's step; collectives of a tensor-parallel group stay among the kernels that wait for them."""
        op: Op = self.graph.nodes[node]["op"]
        if isinstance(op, Collective) and not exchanges(op):
            op = replace(op, stream=COMPUTE)
        self.stands[node] = Value(self.prefix + node)
        return self.prefix + node, op, self.inputs(node)

    def inputs(self, node: str) -> list[Value]:
        """The inputs of a node."""
        return self.values(inputs_of(self.graph, node))

    def values(self, wanted: Crossing | list[Value]) -> list[Value]:
        """Replacements of values of the block's own graph."""
        return [
            self.parts.get(v) or Value(self.stands[v.node].node, v.parts or self.stands[v.node].parts) for v in wanted
        ]
