"""Forward and backward pass of a layer as GraphViz DOT: frozen, trained and saved values differ in colour and shape."""

from __future__ import annotations

from pathlib import Path

import networkx as nx

from graphsim.display.nodes import Entry, number, require
from graphsim.display.palette import FAINT
from graphsim.display.training import is_frozen, is_trained
from graphsim.errors import GraphError
from graphsim.export.dot import PLAIN, Look, Wire, document
from graphsim.export.dot_labels import chip, header, markup, small
from graphsim.export.flat import Edge, Flat, Group, flatten
from graphsim.export.training_layer import LayerPair, kept_from, layer_graph, pairs_of
from graphsim.files.written import write_text
from graphsim.ops import HeadWeightGradient, KeptValue, Op, WeightGradient
from graphsim.training.estimate import TrainEstimate
from graphsim.training.view import title_of
from graphsim.units import bytes_text

TRAINED, FROZEN, KEPT, GRADIENT = "#16a34a", "#64748b", "#ca8a04", "#15803d"
_FILL_KEPT, _FILL_GRADIENT = "#fef9c3", "#bbf7d0"


def training_dot(
    estimate: TrainEstimate | nx.DiGraph, path: str | Path | None = None, *, title: str = "", scenario: int = 0
) -> str:
    """DOT text of the forward and backward pass of one layer, also written to `path` if given.

    The layer is the body of the repeat with the most iterations. Trained weights have a green double border and their
    gradients a green fill, frozen weights have a dashed border. A value that autograd saves is a yellow note with its
    bytes, connected to the operation that produced it. Launches are left out, and the time of an
    operation includes all kernels of its module.

    estimate: the estimate of a step, or the step's graph
    scenario: index of the scenario, if numbers are arrays
    Raises ConfigError if there is no such scenario or `path` is not writable, GraphError if it has no repeat.
    """
    require("training_dot", estimate, TrainEstimate, nx.DiGraph)
    graph = estimate.graph if isinstance(estimate, TrainEstimate) else estimate
    pairs = pairs_of(graph)
    if not pairs:
        raise GraphError("training_dot: the graph holds no repeated layer")
    pair, named = pairs[0], title or (_title(estimate) if isinstance(estimate, TrainEstimate) else "")
    flat = _mirrored(flatten(layer_graph(graph, pair), scenario), pair)
    text = document(
        flat,
        scenario,
        header(flat, named, _legend(flat)),
        lambda entry: _look(entry, scenario),
        _wires(graph, flat, pair),
    )
    if path is not None:
        write_text(path, text)
    return text


def _title(estimate: TrainEstimate) -> str:
    model, _, how = title_of(estimate).partition(", ")
    return f"{model.partition(' on ')[0]}, {how.partition(', ')[0]}"


_BETWEEN = Group("kept", "kept from forward to backward, per layer")


def _mirrored(flat: Flat, pair: LayerPair) -> Flat:
    """The graph with the forward pass downwards, the backward pass upwards next to it, and saved values in between."""
    groups = {name: (_BETWEEN,) if _is_between(entry.op) else flat.groups[name] for name, entry in flat.nodes.items()}
    within = [edge for edge in flat.edges if not edge.stream and _side(edge.source, pair) == _side(edge.target, pair)]
    edges = [
        Edge(edge.source, edge.target, edge.parts, edge.shape, upwards=_side(edge.source, pair) == 1)
        for edge in within
        if not _is_between(flat.nodes[edge.source].op)
    ]
    return Flat(flat.nodes, groups, edges, (), None, flat.caution)


def _side(name: str, pair: LayerPair) -> int:
    """0 for forward, 1 for backward."""
    return int(pair.backward is not None and name.startswith(f"{pair.backward}."))


def _is_between(op: Op) -> bool:
    return isinstance(op, KeptValue) and not op.again


def _wires(graph: nx.DiGraph, flat: Flat, pair: LayerPair) -> list[Wire]:
    """Edges from a saved value's producer to its note and on to its user, and from one pass to the next."""
    made = [Wire(*ends, f'style=dashed, color="{KEPT}"') for ends in kept_from(graph, pair)]
    if pair.backward is None:
        return made
    body = graph.nodes[pair.backward]["op"].body
    names = {name: f"{pair.backward}.{name}" for name in body}
    used = [
        Wire(names[name], names[user], f'color="{KEPT}", constraint=false')
        for name, user in body.edges
        if _is_between(body.nodes[name]["op"]) and names[user] in flat.nodes
    ]
    *_, last = (name for name in flat.nodes if _side(name, pair) == 0)
    first = next(name for name in flat.nodes if _side(name, pair) == 1)
    return [*made, *used, Wire(last, first, f'style=dotted, color="{FAINT}", constraint=false')]


def _legend(flat: Flat) -> list[str]:
    ops = [entry.op for entry in flat.nodes.values()]
    chips = []
    if any(is_trained(op) for op in ops):
        chips.append(chip("#ffffff", TRAINED, "trained weights"))
    if any(is_frozen(op) for op in ops):
        chips.append(chip("#ffffff", FROZEN, "frozen weights", "DASHED"))
    if any(isinstance(op, WeightGradient | HeadWeightGradient) for op in ops):
        chips.append(chip(_FILL_GRADIENT, GRADIENT, "gradient of weights (wgrad)"))
    if any(isinstance(op, KeptValue) for op in ops):
        chips.append(chip(_FILL_KEPT, KEPT, "kept until the backward pass"))
    return chips


def _look(entry: Entry, scenario: int) -> Look:
    op = entry.op
    if isinstance(op, KeptValue):
        size = bytes_text(number(op.kept_bytes, scenario)) + (", within the turn" if op.again else "")
        label = f"{markup(entry.label.removesuffix('.kept'))}<BR/>{small(f'<B>{size}</B>', KEPT, 10)}"
        style = {"shape": "note", "style": "filled", "fillcolor": f'"{_FILL_KEPT}"', "color": f'"{KEPT}"'}
        return Look(style | {"penwidth": "1.4"}, label=label)
    if isinstance(op, WeightGradient | HeadWeightGradient):
        return Look({"fillcolor": f'"{_FILL_GRADIENT}"', "color": f'"{GRADIENT}"', "penwidth": "1.8"})
    if is_trained(op):
        style = {"color": f'"{TRAINED}"', "penwidth": "2", "peripheries": "2"}
        return Look(style, small("<B>trained</B>", TRAINED, 9))
    if is_frozen(op):
        style = {"color": f'"{FROZEN}"', "penwidth": "1.4", "style": '"rounded,filled,dashed"'}
        return Look(style, small("frozen", FROZEN, 9))
    return PLAIN
